// The search page: question, language filter, and a card for each document found. The state is in the address
// (?q=…&lang=fa&lang=ru&k=20&view=beside), so that a search can be bookmarked and the back button works.

import { Beside } from "./beside.js";
import { Card } from "./card.js";
import { call, hasKey, setKey, toCurl } from "./server.js";
import { Words } from "./words.js";

const TYPING_PAUSE_MS = 350; // without a keystroke before a search starts
const $ = (id) => document.getElementById(id);
const copy = (id) => $(id).content.firstElementChild.cloneNode(true);
const number = new Intl.NumberFormat("en");

let languages = new Map(); // code → {code, name, autonym, dir, documents}
let maxResults = 1000; // of a search, those that are skipped among them
let running = null; // AbortController of the current search
let pause = null; // timer that starts a search after a typing pause
let request = null; // the last one that was answered
let cards = []; // those that are shown
let words = null; // the words of the question
let beside = null; // the index of words beside the student

const chosen = () => [...document.querySelectorAll("[name=lang]:checked")].map((box) => box.value);

function start() {
  words = new Words($("question"), $("matched"));
  beside = new Beside(() => search());
  document.addEventListener("keydown", onKey);
  $("form").addEventListener("submit", (event) => { event.preventDefault(); search({ push: true }); });
  $("query").addEventListener("input", () => { fitQuery(); clearTimeout(pause); pause = setTimeout(search, TYPING_PAUSE_MS); });
  $("key").addEventListener("submit", (event) => { event.preventDefault(); giveKey(); });
  $("more").addEventListener("click", showMore);
  $("curl").addEventListener("click", copyCurl);
  window.addEventListener("popstate", readAddress);
  window.addEventListener("resize", () => { fitQuery(); [...cards, ...beside.cards].forEach((card) => card.offerMore()); });
  return load();
}

async function load() {
  try {
    showInfo(await call("info"));
  } catch (error) {
    return showError("The server does not answer", error);
  }
  return readAddress();
}

function showInfo(info) {
  languages = new Map(info.languages.map((language) => [language.code, language]));
  maxResults = info.max_k;
  const amount = `${number.format(info.documents)} documents in ${languages.size} ${languages.size === 1 ? "language" : "languages"}`;
  document.title = `${info.recipe} · babelray`;
  $("about").textContent = `${info.recipe} · ${info.kind} · ${amount}`;
  $("count").textContent = amount;
  $("version").textContent = `babelray ${info.versions.babelray}`;
  $("query").maxLength = info.limits.max_query_chars;
  if (info.kind === "bm25" || info.model_type?.embedding) words.isPossible = false; // no vector for each token
  beside.readInfo(info);
  $("chips").replaceChildren(...info.languages.map(toChip));
  $("examples").replaceChildren(...info.examples.map(toExample));
}

function toChip(language) {
  const chip = copy("chip");
  chip.title = `${language.autonym} · ${number.format(language.documents)} documents`;
  chip.querySelector("input").value = language.code;
  chip.querySelector("input").addEventListener("change", () => search());
  chip.querySelector(".name").textContent = language.name;
  chip.querySelector(".code").textContent = language.code;
  return chip;
}

function toExample(text) {
  const item = copy("example");
  const button = item.querySelector("button");
  button.textContent = text;
  button.addEventListener("click", () => {
    $("query").value = text;
    fitQuery();
    $("query").focus();
    search({ push: true });
  });
  return item;
}

function readAddress() {
  const address = new URLSearchParams(location.search);
  $("query").value = address.get("q") || "";
  fitQuery();
  for (const box of document.querySelectorAll("[name=lang]")) box.checked = address.getAll("lang").includes(box.value);
  beside.view = address.get("view");
  return search({ keep: true });
}

function writeAddress(query, push) {
  const address = new URLSearchParams(chosen().map((code) => ["lang", code]));
  if (query) address.set("q", query);
  const k = new URLSearchParams(location.search).get("k");
  if (k) address.set("k", k);
  if (beside.view !== beside.usual) address.set("view", beside.view);
  const target = address.size ? `?${address}` : location.pathname;
  history[push ? "pushState" : "replaceState"](null, "", target);
}

// The field is as high as its text.
function fitQuery() {
  $("query").style.height = "auto";
  $("query").style.height = `${$("query").scrollHeight}px`;
}

async function search({ push = false, keep = false } = {}) {
  clearTimeout(pause);
  running?.abort();
  $("results").removeAttribute("aria-busy");
  const query = $("query").value.trim();
  if (!keep) writeAddress(query, push);
  $("problem").hidden = true;
  $("key").hidden = true;
  $("welcome").hidden = Boolean(query);
  if (!query) return showNothing();
  const k = Number(new URLSearchParams(location.search).get("k")) || 10;
  const wanted = { query, k, offset: 0, collapse: true, ...beside.fields, ...(chosen().length && { languages: chosen() }) };
  running = new AbortController();
  const answer = await ask(wanted);
  if (!answer) return;
  beside.clear();
  words.clear();
  showStatus(answer);
  cards = [];
  $("results").replaceChildren();
  addCards(answer.results);
}

async function showMore() {
  const shown = cards.length;
  $("more").disabled = true;
  const answer = await ask({ ...request, offset: request.offset + request.k });
  $("more").disabled = false;
  if (!answer) return;
  addCards(answer.results);
  cards[shown]?.item.querySelector("article").focus();
}

// Send a search. Returns nothing where it failed, which is then shown, or where a newer one replaced it.
async function ask(wanted) {
  const mine = running;
  $("results").setAttribute("aria-busy", "true");
  try {
    const answer = await call("search", wanted, mine.signal);
    if (mine.signal.aborted) return null;
    request = wanted;
    return answer;
  } catch (error) {
    if (mine.signal.aborted) return null;
    showError("This search could not be done", error);
    return null;
  } finally {
    if (running === mine) $("results").removeAttribute("aria-busy");
  }
}

// The status is emptied, never hidden: screen readers announce only changes in a region that is already rendered.
function showNothing() {
  cards = [];
  beside.clear();
  words.clear();
  $("results").replaceChildren();
  $("status").textContent = "";
  $("after").hidden = true;
  countLanguages();
}

function showStatus({ results, took_ms: took }) {
  const parts = Object.entries(took).filter(([name]) => name !== "total").map(([name, ms]) => `${name} ${ms.toFixed(1)}`);
  const found = results.length ? `${results.length} ${results.length === 1 ? "result" : "results"}` : "Nothing found";
  const advice = results.length ? "" : chosen().length ? " Try more languages." : " Try other words.";
  const stages = parts.length ? ` (${parts.join(", ")})` : "";
  $("status").textContent = `${found} in ${took.total.toFixed(1)} ms${stages}.${advice}`;
}

// Add a card for each result. A later page of an index with clusters may repeat a document of an earlier one.
function addCards(results) {
  const shown = new Set(cards.map((card) => card.id));
  const best = cards[0]?.best ?? results[0]?.score;
  const onSwitch = (card) => words.explainLanguage(card);
  const added = results.filter(({ doc_id: id }) => !shown.has(id)).map((result) => new Card(result, languages, best, onSwitch));
  cards.push(...added);
  $("results").append(...added.map((card) => card.item));
  added.forEach((card) => card.offerMore());
  $("after").hidden = !cards.length;
  $("command").hidden = true;
  $("more").hidden = results.length < request.k || request.offset + 2 * request.k > maxResults;
  countLanguages();
  if (added.length) words.explain(request, cards, running.signal);
  compare(running.signal);
}

// Ask the index of words the same, where it stands beside the student.
async function compare(signal) {
  beside.compare(cards);
  await beside.ask(request, languages, signal);
  if (!signal.aborted) beside.compare(cards);
}

// Count on each chip the texts that the cards have in its language.
function countLanguages() {
  const langs = cards.flatMap((card) => card.readings.map(({ lang }) => lang));
  for (const chip of document.querySelectorAll(".chip")) {
    const amount = langs.filter((lang) => lang === chip.querySelector("input").value).length;
    chip.querySelector(".found").hidden = !amount;
    chip.querySelector(".amount").textContent = amount;
  }
}

async function copyCurl() {
  const command = toCurl("search", request);
  try {
    await navigator.clipboard.writeText(command);
    $("copied").textContent = "Copied.";
  } catch { // browsers let pages write to the clipboard only over HTTPS and on this machine
    $("copied").textContent = "The browser does not let this page copy; here it is.";
    $("command").textContent = command;
    $("command").hidden = false;
  }
  setTimeout(() => { $("copied").textContent = ""; }, 4000);
}

function showError(title, error) {
  showNothing();
  if (error.status === 401) return askForKey();
  const heading = Object.assign(document.createElement("h2"), { textContent: title });
  const reason = Object.assign(document.createElement("p"), { textContent: error.message });
  $("problem").replaceChildren(heading, reason);
  $("problem").hidden = false;
}

function askForKey() {
  $("wrong").hidden = !hasKey();
  setKey("");
  $("welcome").hidden = true;
  $("key").hidden = false;
  $("secret").focus();
}

function giveKey() {
  setKey($("secret").value.trim());
  $("secret").value = "";
  $("key").hidden = true;
  $("query").focus();
  load();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const active = document.activeElement;
  const column = active.closest("#words") ? beside.cards : cards;
  const articles = column.map((card) => card.item.querySelector("article"));
  const at = articles.indexOf(active);
  const [inQuery, inField] = [active === $("query"), active.matches("input:not([type=checkbox]), textarea")];
  const atEnd = inQuery && active.selectionStart === active.value.length; // elsewhere, the key moves between its lines
  if (event.key === "/" && !inField) {
    $("query").select();
  } else if (event.key === "Enter" && inQuery && !event.shiftKey) {
    $("form").requestSubmit();
  } else if (event.key === "Escape" && !inQuery) {
    $("query").focus();
  } else if (event.key === "ArrowDown" && articles.length && (atEnd || at >= 0)) {
    articles[Math.min(at + 1, articles.length - 1)].focus();
  } else if (event.key === "ArrowUp" && at >= 0) {
    (articles[at - 1] || $("query")).focus();
  } else {
    return;
  }
  event.preventDefault();
}

start();
