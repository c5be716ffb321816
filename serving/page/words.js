// The words of the question. Pointing at one, or moving the focus to it, lights in each result the word whose vector is
// the most similar to its own, and lists these words. The server says which they are: POST /search with `explain`,
// asked when the results are there. Where the server cannot say (one vector for each text, an index of words), or the
// browser cannot light ranges of text, there is no such line.

import { call } from "./server.js";

const MAX_EXPLAINED = 100; // results of one request, as the server allows
const LISTED = 8; // words
const LIGHT = "matched"; // ::highlight(matched) in style.css
const NEVER = [404, 422]; // no later search is explained either
const segmenter = globalThis.Intl?.Segmenter && new Intl.Segmenter(undefined, { granularity: "word" });
const nameKey = (lang, id) => `${lang}:${id}`;

export class Words {
  // `line` is the section of the question's words, `list` the place in it of the words that they matched.
  constructor(line, list) {
    this.line = line;
    this.list = list;
    this.isPossible = Boolean(segmenter && globalThis.Highlight && CSS.highlights);
    this.clear();
  }

  clear() {
    this.query = "";
    this.cards = [];
    this.matches = new Map(); // language:id → the matches of the document
    this.asked = new Set(); // requests
    this.kept = null; // the word that has the focus, or had it before a result got it
    this.line.hidden = true;
    this.line.querySelector(".words").replaceChildren();
    this.light(null);
  }

  // Ask which words matched in the results of a search, and show the question's words when that is known. `cards` are
  // all that are shown; `signal` ends the request.
  async explain(request, cards, signal) {
    this.cards = cards;
    this.request = request;
    this.signal = signal;
    await this.ask({ ...request, k: Math.min(request.k, MAX_EXPLAINED) });
  }

  // The same for a language that a card has changed to.
  async explainLanguage({ lang, id }) {
    this.light(this.kept);
    if (!this.request || !this.query || this.matches.has(nameKey(lang, id))) return;
    const k = Math.min(this.request.offset + this.request.k, MAX_EXPLAINED);
    await this.ask({ query: this.request.query, k, languages: [lang] });
  }

  async ask(request) {
    const name = JSON.stringify(request);
    if (!this.isPossible || this.asked.has(name)) return;
    this.asked.add(name);
    const signal = this.signal;
    let answer;
    try {
      answer = await call("search", { ...request, explain: true }, signal);
    } catch (error) {
      if (NEVER.includes(error.status)) this.isPossible = false;
      return; // the results stand without it
    }
    if (signal.aborted) return;
    for (const { lang, doc_id: id, matches } of answer.results) this.matches.set(nameKey(lang, id), matches || []);
    if (!this.query) this.showQuery(answer);
    this.light(this.kept);
  }

  showQuery({ query, results }) {
    const matches = results.find((result) => result.matches?.length)?.matches;
    if (!matches) return;
    this.query = query;
    const units = countUnits(query);
    const tokens = matches.map((match) => match.query).filter((token) => token.start !== undefined);
    const parts = [...segmenter.segment(query)].map(({ segment, index, isWordLike }) => {
      const holds = ({ start, end }) => units[start] < index + segment.length && units[end] > index;
      return isWordLike && tokens.some(holds) ? this.makeWord(segment, index) : segment;
    });
    this.line.querySelector(".words").replaceChildren(...parts);
    this.line.hidden = false;
  }

  makeWord(text, start) {
    const word = Object.assign(document.createElement("button"), { type: "button", className: "word", textContent: text });
    const place = { word, start, end: start + text.length };
    word.addEventListener("mouseenter", () => this.light(place));
    word.addEventListener("mouseleave", () => this.light(this.kept));
    word.addEventListener("focus", () => this.light((this.kept = place)));
    word.addEventListener("blur", ({ relatedTarget }) => {
      if (!relatedTarget?.closest("#results")) this.kept = null;
      this.light(this.kept);
    });
    word.addEventListener("click", () => word.focus()); // not every browser moves the focus to a button
    return word;
  }

  // Light what a word of the question matched in the cards; null: nothing.
  light(place) {
    this.line.querySelector(".lit")?.classList.remove("lit");
    place?.word.classList.add("lit");
    const found = place ? this.cards.flatMap((card) => this.findRanges(card, place)) : [];
    if (this.isPossible) CSS.highlights.set(LIGHT, new Highlight(...found.map(({ range }) => range)));
    const best = new Map(); // text → its best match
    for (const hit of found.sort((one, other) => other.score - one.score)) {
      const text = hit.range.toString();
      if (!best.has(text.toLowerCase())) best.set(text.toLowerCase(), { ...hit, text });
    }
    const items = [...best.values()].slice(0, LISTED).map(({ text, lang }) =>
      Object.assign(document.createElement("bdi"), { textContent: text, lang }),
    );
    this.list.replaceChildren(...items.flatMap((item, index) => (index ? [" · ", item] : [item])));
  }

  // The words of a card that the tokens of a word of the question matched.
  findRanges(card, { start, end }) {
    const units = countUnits(this.query);
    const matches = this.matches.get(nameKey(card.lang, card.id)) || [];
    return matches
      .filter(({ query }) => query.start !== undefined && units[query.start] < end && units[query.end] > start)
      .filter(({ passage }) => passage.start !== undefined)
      .map(({ passage, score }) => {
        const node = (passage.field === "title" ? card.title : card.text).firstChild;
        return node && { range: findWord(node, passage), score, lang: card.lang };
      })
      .filter(Boolean);
  }
}

// For each character of a text, counted as the server does, its place as JavaScript counts: "𝄞" is one there and two here.
function countUnits(text) {
  const units = [0];
  for (const character of text) units.push(units.at(-1) + character.length);
  return units;
}

// The range of the whole words that a token is a piece of.
function findWord(node, { start, end }) {
  const units = countUnits(node.data);
  const words = segmenter.segment(node.data);
  const [first, last] = [words.containing(units[start]), words.containing(units[end] - 1)];
  const range = document.createRange();
  range.setStart(node, first.index);
  range.setEnd(node, last.index + last.segment.length);
  return range;
}
