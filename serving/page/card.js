// A card: one document, with a tab for each language in which it was found. The tab of the best language is open.

const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export class Card {
  // `languages` maps a code to {code, name, dir}. `best` is the first result's score; `onSwitch(card)` is called when
  // another tab opens. `column` begins the ids of elements, which another column may not have.
  constructor(result, languages, best, onSwitch, column = "") {
    this.id = result.doc_id;
    this.ranks = result.ranks;
    this.column = column;
    this.readings = [result, ...(result.translations || [])]; // each {lang, score, title, text}, best first
    this.languages = languages;
    this.best = best;
    this.onSwitch = onSwitch;
    this.item = copy("result");
    this.title = this.item.querySelector("h2");
    this.text = this.item.querySelector(".text");
    this.item.querySelector(".rank").textContent = result.rank;
    this.item.querySelector(".id").textContent = result.doc_id;
    this.item.querySelector(".more").addEventListener("click", () => this.setShort(!this.text.classList.contains("short")));
    this.addTabs(result.rank);
    this.show(0);
  }

  language(code) {
    return this.languages.get(code) || { code, name: code, dir: "auto" };
  }

  addTabs(rank) {
    const panel = this.item.querySelector(".panel");
    panel.id = `${this.column}panel-${rank}`;
    this.tabs = this.readings.map(({ lang }, index) => {
      const tab = copy("tab");
      const { code, name } = this.language(lang);
      tab.id = `${this.column}tab-${rank}-${index}`;
      tab.title = name;
      tab.querySelector(".code").textContent = code;
      tab.querySelector(".name").textContent = name;
      tab.setAttribute("aria-controls", panel.id);
      tab.addEventListener("click", () => this.open(index));
      return tab;
    });
    const list = this.item.querySelector(".tabs");
    list.append(...this.tabs);
    list.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    const last = this.tabs.length - 1;
    const steps = { ArrowLeft: this.opened - 1, ArrowRight: this.opened + 1, Home: 0, End: last };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.open((steps[event.key] + this.tabs.length) % this.tabs.length);
    this.tabs[this.opened].focus();
  }

  open(index) {
    if (index === this.opened) return;
    this.show(index);
    this.offerMore();
    this.onSwitch(this);
  }

  // The language whose text is shown.
  get lang() {
    return this.readings[this.opened].lang;
  }

  show(index) {
    this.opened = index;
    const { lang, score, title, text } = this.readings[index];
    const { code, dir } = this.language(lang);
    this.tabs.forEach((tab, at) => {
      tab.setAttribute("aria-selected", String(at === index));
      tab.tabIndex = at === index ? 0 : -1;
    });
    this.item.querySelector(".panel").setAttribute("aria-labelledby", this.tabs[index].id);
    this.item.querySelector(".score").textContent = score.toFixed(3);
    const share = this.best > 0 ? Math.min(Math.max(score / this.best, 0), 1) : 0;
    this.item.querySelector(".bar").style.setProperty("--share", share.toFixed(3));
    this.title.textContent = title;
    this.title.hidden = !title;
    this.text.textContent = text;
    for (const element of [this.title, this.text]) Object.assign(element, { lang: code, dir });
    this.setShort(true);
  }

  // Say which ranks the document has elsewhere.
  showRanks(text) {
    const ranks = this.item.querySelector(".ranks");
    ranks.textContent = text;
    ranks.hidden = !text;
  }

  setShort(short) {
    this.text.classList.toggle("short", short);
    const more = this.item.querySelector(".more");
    more.textContent = short ? "Show all" : "Show less";
    more.setAttribute("aria-expanded", String(!short));
  }

  // Show the button for the whole text where the text is cut.
  offerMore() {
    if (!this.text.classList.contains("short")) return;
    this.item.querySelector(".more").hidden = this.text.scrollHeight <= this.text.clientHeight + 1;
  }
}
