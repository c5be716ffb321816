// Requests to the server: with the API key, where one was asked for, and as a command for a terminal.

const STORED_KEY = "babelray-api-key";
let key = readKey();

export class ServerError extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status; // of the HTTP response
  }
}

function readKey() {
  try {
    return sessionStorage.getItem(STORED_KEY) || "";
  } catch {
    return ""; // the browser lets this page store nothing: the key lasts until the page is left
  }
}

export const hasKey = () => Boolean(key);

// Keep a key until the tab is closed; "" forgets it.
export function setKey(text) {
  key = text;
  try {
    if (key) sessionStorage.setItem(STORED_KEY, key);
    else sessionStorage.removeItem(STORED_KEY);
  } catch {
    // as above
  }
}

// Ask the server: POST where there is a body. Throws ServerError with the server's own sentence.
export async function call(path, body, signal) {
  const headers = { ...(body && { "content-type": "application/json" }), ...(key && { "x-api-key": key }) };
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const response = await fetch(path, { ...options, headers, signal });
  const isJson = (response.headers.get("content-type") || "").includes("json");
  if (!isJson) {
    const start = (await response.text()).slice(0, 200);
    throw new ServerError(response.status, `The server answered ${response.status}: ${start}`);
  }
  const answer = await response.json();
  if (!response.ok) throw new ServerError(response.status, answer.error || `The server answered ${response.status}`);
  return answer;
}

// The same request for curl. It names the variable that holds the key, and never the key.
export function toCurl(path, body) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const address = new URL(path, document.baseURI).href;
  const lines = [`curl ${quote(address)}`, `-H ${quote("content-type: application/json")}`];
  if (key) lines.push('-H "x-api-key: $BABELRAY_KEY"');
  lines.push(`--data-binary ${quote(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}
