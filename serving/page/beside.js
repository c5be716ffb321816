// The student beside an index of words (BM25), where the server has one: which of their results are shown, and where
// each of the two has what the other found. On a narrow screen one column is shown, and a switch chooses which.

import { Card } from "./card.js";
import { call } from "./server.js";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const label = (system) => (system === "bm25" ? "BM25" : system);

export class Beside {
  // `onChange()` is called when other results are chosen.
  constructor(onChange) {
    this.cards = [];
    this.words = null; // the name of the index of words as a model
    for (const radio of this.radios) radio.addEventListener("change", onChange);
    for (const button of $("switch").children) button.addEventListener("click", () => this.show(button.dataset.column));
    this.show("first");
  }

  get radios() {
    return [...document.querySelectorAll("[name=view]")];
  }

  // "student", "beside" or "fused".
  get view() {
    return this.words ? this.radios.find((radio) => radio.checked).value : "student";
  }

  set view(value) {
    const known = this.radios.some((radio) => radio.value === value);
    for (const radio of this.radios) radio.checked = radio.value === (known ? value : this.usual);
  }

  // What the server does where a search does not say.
  get usual() {
    return this.isFused ? "fused" : "student";
  }

  readInfo(info) {
    this.words = info.hybrid ? `${info.recipe}/${info.hybrid.system}` : null;
    this.isFused = Boolean(info.hybrid?.default);
    this.names = [label(info.system), label(info.hybrid?.system)];
    $("views").hidden = !this.words;
    if (!this.words) return;
    const [student, words] = this.names;
    const views = { student, beside: `${student} beside ${words}`, fused: "both fused" };
    for (const radio of this.radios) radio.nextElementSibling.textContent = views[radio.value];
    [...$("switch").children].forEach((button, at) => { button.textContent = this.names[at]; });
  }

  // What a search says of the index of words.
  get fields() {
    return this.words ? { hybrid: this.view === "fused" } : {};
  }

  // Show one or two columns.
  arrange() {
    const isBeside = this.view === "beside";
    document.body.classList.toggle("wide", isBeside);
    for (const id of ["switch", "beside"]) $(id).hidden = !isBeside;
    document.querySelector("#first .head").hidden = !isBeside;
  }

  show(column) {
    $("columns").dataset.shown = column;
    for (const button of $("switch").children) button.setAttribute("aria-pressed", String(button.dataset.column === column));
  }

  clear() {
    this.cards = [];
    $("words").replaceChildren();
    $("none").hidden = true;
    this.arrange();
  }

  // Ask the index of words what the student was asked.
  async ask(request, languages, signal) {
    if (this.view !== "beside") return;
    const { hybrid, ...rest } = request;
    let answer;
    try {
      answer = await call("search", { ...rest, model: this.words }, signal);
    } catch (error) {
      if (!signal.aborted) this.tell(error.message);
      return;
    }
    if (signal.aborted) return;
    const shown = new Set(this.cards.map((card) => card.id));
    const best = this.cards[0]?.best ?? answer.results[0]?.score;
    const added = answer.results
      .filter(({ doc_id: id }) => !shown.has(id))
      .map((result) => new Card(result, languages, best, () => {}, "words-"));
    this.cards.push(...added);
    $("words").append(...added.map((card) => card.item));
    added.forEach((card) => card.offerMore());
    if (!this.cards.length) this.tell("No text has a word of the question.");
  }

  tell(sentence) {
    $("none").textContent = sentence;
    $("none").hidden = false;
  }

  // Say on each card where the other column has its document; or, where results are fused, which rank each system gave it.
  compare(cards) {
    if (this.view === "fused") return cards.forEach((card) => card.showRanks(this.describe(card.ranks)));
    if (this.view !== "beside") return;
    const columns = [[cards, this.cards, 1], [this.cards, cards, 0]];
    for (const [own, others, name] of columns) {
      const places = new Map(others.map((card, at) => [card.id, at + 1]));
      for (const card of own) card.showRanks(`${this.names[name]} ${places.get(card.id) ?? "–"}`);
    }
    const [student, words] = this.names;
    const count = (shown) => `${number.format(shown.length)} ${shown.length === 1 ? "result" : "results"}`;
    document.querySelector("#first .head").textContent = `${student} · ${count(cards)}`;
    document.querySelector("#beside .head").textContent = `${words} · ${count(this.cards)}`;
  }

  describe(ranks = {}) {
    return Object.entries(ranks).map(([system, rank]) => `${label(system)} ${rank}`).join(" · ");
  }
}
