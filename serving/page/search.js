// The search page: query field, language filter, and results in the direction of their script. The state is in the
// address (?q=…&lang=fa&lang=ru&k=20), so that a search can be bookmarked and the back button works.

const TYPING_PAUSE_MS = 350; // without a keystroke before a search starts
const $ = (id) => document.getElementById(id);
const copy = (id) => $(id).content.firstElementChild.cloneNode(true);
const number = new Intl.NumberFormat("en");

let languages = new Map(); // code → {code, name, autonym, dir, documents}
let running = null; // AbortController of the current search
let pause = null; // timer that starts a search after a typing pause

const chosen = () => [...document.querySelectorAll("[name=lang]:checked")].map((box) => box.value);

async function call(path, options) {
  const response = await fetch(path, options);
  const isJson = (response.headers.get("content-type") || "").includes("json");
  if (!isJson) throw new Error(`The server answered ${response.status}: ${(await response.text()).slice(0, 200)}`);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error || `The server answered ${response.status}`);
  return body;
}

async function start() {
  document.addEventListener("keydown", onKey);
  $("form").addEventListener("submit", (event) => { event.preventDefault(); search({ push: true }); });
  $("query").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(search, TYPING_PAUSE_MS); });
  window.addEventListener("popstate", readAddress);
  window.addEventListener("resize", offerMore);
  try {
    showInfo(await call("info"));
  } catch (error) {
    return showProblem("The server does not answer", error.message);
  }
  readAddress();
}

function showInfo(info) {
  languages = new Map(info.languages.map((language) => [language.code, language]));
  const amount = `${number.format(info.documents)} documents in ${languages.size} ${languages.size === 1 ? "language" : "languages"}`;
  document.title = `${info.recipe} · babelray`;
  $("about").textContent = `${info.recipe} · ${info.kind} · ${amount}`;
  $("count").textContent = amount;
  $("version").textContent = `babelray ${info.versions.babelray}`;
  $("query").maxLength = info.limits.max_query_chars;
  for (const language of languages.values()) {
    const chip = copy("chip");
    chip.title = `${language.autonym} · ${number.format(language.documents)} documents`;
    chip.querySelector("input").value = language.code;
    chip.querySelector("input").addEventListener("change", () => search());
    chip.querySelector(".name").textContent = language.name;
    chip.querySelector(".code").textContent = language.code;
    $("chips").append(chip);
  }
}

function readAddress() {
  const address = new URLSearchParams(location.search);
  $("query").value = address.get("q") || "";
  for (const box of document.querySelectorAll("[name=lang]")) box.checked = address.getAll("lang").includes(box.value);
  search({ keep: true });
}

function writeAddress(query, push) {
  const address = new URLSearchParams(chosen().map((code) => ["lang", code]));
  if (query) address.set("q", query);
  const k = new URLSearchParams(location.search).get("k");
  if (k) address.set("k", k);
  const target = address.size ? `?${address}` : location.pathname;
  history[push ? "pushState" : "replaceState"](null, "", target);
}

async function search({ push = false, keep = false } = {}) {
  clearTimeout(pause);
  running?.abort();
  $("results").removeAttribute("aria-busy");
  const query = $("query").value.trim();
  if (!keep) writeAddress(query, push);
  $("problem").hidden = true;
  $("welcome").hidden = Boolean(query);
  if (!query) {
    $("results").replaceChildren();
    $("status").textContent = "";
    return;
  }
  running = new AbortController();
  $("results").setAttribute("aria-busy", "true");
  const k = Number(new URLSearchParams(location.search).get("k")) || 10;
  const request = { query, k, ...(chosen().length && { languages: chosen() }) };
  try {
    const answer = await call("search", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
      signal: running.signal,
    });
    showAnswer(answer);
  } catch (error) {
    if (error.name === "AbortError") return; // a newer search replaced this one and shows its own answer
    showProblem("This search could not be done", error.message);
  }
  $("results").removeAttribute("aria-busy");
}

// The status is emptied, never hidden: screen readers announce only changes in a region that is already rendered.
function showAnswer({ results, took_ms: took }) {
  const parts = Object.entries(took).filter(([name]) => name !== "total").map(([name, ms]) => `${name} ${ms.toFixed(1)}`);
  const found = results.length ? `${results.length} ${results.length === 1 ? "result" : "results"}` : "Nothing found";
  const advice = results.length ? "" : chosen().length ? " Try more languages." : " Try other words.";
  $("status").textContent = `${found} in ${took.total.toFixed(1)} ms (${parts.join(", ")}).${advice}`;
  $("results").replaceChildren(...results.map(toItem));
  offerMore();
}

function toItem(result) {
  const language = languages.get(result.lang) || { code: result.lang, name: "", dir: "auto" };
  const item = copy("result");
  item.querySelector(".rank").textContent = result.rank;
  item.querySelector(".tag .code").textContent = language.code;
  item.querySelector(".tag .name").textContent = language.name;
  item.querySelector(".score").textContent = result.score.toFixed(3);
  item.querySelector(".id").textContent = result.doc_id;
  const title = item.querySelector("h2");
  const text = item.querySelector(".text");
  title.textContent = result.title;
  title.hidden = !result.title;
  text.textContent = result.text;
  text.classList.add("short");
  for (const element of [title, text]) Object.assign(element, { lang: language.code, dir: language.dir });
  const more = item.querySelector(".more");
  more.addEventListener("click", () => {
    const short = text.classList.toggle("short");
    more.textContent = short ? "Show all" : "Show less";
    more.setAttribute("aria-expanded", String(!short));
  });
  return item;
}

function offerMore() {
  for (const text of document.querySelectorAll(".text.short")) {
    text.parentElement.querySelector(".more").hidden = text.scrollHeight <= text.clientHeight + 1;
  }
}

function showProblem(title, sentence) {
  const heading = Object.assign(document.createElement("h2"), { textContent: title });
  const reason = Object.assign(document.createElement("p"), { textContent: sentence });
  $("problem").replaceChildren(heading, reason);
  $("problem").hidden = false;
  $("status").textContent = "";
  $("results").replaceChildren();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const articles = [...document.querySelectorAll("#results article")];
  const at = articles.indexOf(document.activeElement);
  const inQuery = document.activeElement === $("query");
  if (event.key === "/" && !inQuery) {
    $("query").select();
  } else if (event.key === "Escape" && !inQuery) {
    $("query").focus();
  } else if (event.key === "ArrowDown" && articles.length && (inQuery || at >= 0)) {
    articles[Math.min(at + 1, articles.length - 1)].focus();
  } else if (event.key === "ArrowUp" && at >= 0) {
    (articles[at - 1] || $("query")).focus();
  } else {
    return;
  }
  event.preventDefault();
}

start();
