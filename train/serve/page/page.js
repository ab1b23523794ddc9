/* page.js: a conversation with the models of this server, streamed; several side by side. Everything
 * that comes from a model becomes text nodes, never markup. */
"use strict";
const at = id => document.getElementById(id);
const numbers = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];
let talks = {}; // messages by model, so that each goes on from what it said itself
let running = null;

function make(kind, name, parent, text) {
  const node = document.createElement(kind);
  if (name) node.className = name;
  if (text) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function headers() {
  const key = at("key").value;
  return key ? {"Content-Type": "application/json", "Authorization": "Bearer " + key}
             : {"Content-Type": "application/json"};
}

async function models() {
  try {
    const reply = await fetch("v1/models", {headers: headers()});
    const list = (await reply.json()).data || [];
    at("model").replaceChildren(...list.map(m => new Option(m.id, m.id)));
    at("beside").parentNode.hidden = list.length < 2;
  } catch (e) { /* shown when something is sent */ }
}

function settings(model) {
  const body = {model, stream: true, stream_options: {include_usage: true}};
  for (const name of numbers) if (at(name).value !== "") body[name] = Number(at(name).value);
  if (body.seed === undefined) body.seed = Math.floor(Math.random() * 2 ** 31);
  if (at("stop").value) body.stop = [at("stop").value];
  return body;
}

/* The data of each event, as it comes. */
async function* events(reply) {
  const reader = reply.body.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    rest += decoder.decode(value, {stream: true});
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      const line = rest.slice(0, end);
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

const percent = p => (100 * Math.exp(p)).toFixed(Math.exp(p) > .1 ? 1 : 3) + " %";

/* A token, the redder the less likely, with what else could have stood there. */
function token(parent, text, own, tops) {
  const node = make("span", "token", parent, text), likely = Math.exp(own);
  node.tabIndex = 0;
  node.style.background = `color-mix(in srgb, hsl(${Math.round(120 * likely)} 70% 50%) 28%, transparent)`;
  const lines = [JSON.stringify(text) + "  " + percent(own), ""]
    .concat(tops.map(([t, p]) => percent(p).padStart(8) + "  " + JSON.stringify(t)));
  const show = () => {
    const box = node.getBoundingClientRect(), tip = at("tip");
    tip.textContent = lines.join("\n"), tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (box.bottom + tip.offsetHeight + 8 > innerHeight
      ? box.top - tip.offsetHeight - 4 : box.bottom + 4) + "px";
  };
  const hide = () => { at("tip").hidden = true; };
  node.addEventListener("mouseenter", show), node.addEventListener("mouseleave", hide);
  node.addEventListener("focus", show), node.addEventListener("blur", hide);
}

function scores(parent, choice) {
  const found = choice.logprobs;
  if (!found) return false;
  for (const t of found.content || [])
    token(parent, t.token, t.logprob, t.top_logprobs.map(x => [x.token, x.logprob]));
  for (let i = 0; i < (found.tokens || []).length; i++)
    if (found.token_logprobs[i] !== null)
      token(parent, found.tokens[i], found.token_logprobs[i],
        Object.entries(found.top_logprobs[i] || {}).sort((a, b) => b[1] - a[1]));
  return true;
}

function near() { const log = at("log"); return log.scrollHeight - log.scrollTop - log.clientHeight < 80; }
function follow(was) { if (was) at("log").scrollTop = at("log").scrollHeight; }

async function ask(model, said, card, signal) {
  const talk = talks[model] = talks[model] || [], chat = at("way").value === "chat";
  const body = settings(model), shows = at("probabilities").checked;
  const messages = (at("system").value ? [{role: "system", content: at("system").value}] : [])
    .concat(talk, [{role: "user", content: said}]);
  if (chat) body.messages = messages; else body.prompt = said;
  if (shows && chat) body.logprobs = true, body.top_logprobs = 5;
  if (shows && !chat) body.logprobs = 5;
  make("div", "who", card, model);
  let thought = null, answer = "", reasoning = "", usage = null, finish = "", print = "";
  const text = make("div", "text", card), began = performance.now();
  try {
    const reply = await fetch(chat ? "v1/chat/completions" : "v1/completions",
      {method: "POST", headers: headers(), body: JSON.stringify(body), signal});
    if (!reply.ok) throw new Error(((await reply.json()).error || {}).message || reply.statusText);
    for await (const e of events(reply)) {
      const was = near(), choice = (e.choices || [])[0];
      if (e.error) throw new Error(e.error.message);
      usage = e.usage || usage, print = e.system_fingerprint || print;
      if (!choice) continue;
      const delta = choice.delta || {content: choice.text};
      if (delta.reasoning_content) {
        if (!thought) {
          const box = make("details", "", null);
          make("summary", "", box, "thought"), card.insertBefore(box, text);
          thought = make("div", "text", box);
        }
        reasoning += delta.reasoning_content, thought.textContent = reasoning;
      }
      const marked = scores(text, choice);
      if (delta.content) {
        answer += delta.content;
        if (!marked) text.append(delta.content);
      }
      finish = choice.finish_reason || finish, follow(was);
    }
    const seconds = (performance.now() - began) / 1000, was = near();
    make("div", "note", card, `${usage ? usage.completion_tokens : "?"} tokens, ` +
      `${usage ? (usage.completion_tokens / seconds).toFixed(1) : "?"} tokens/s, ends: ${finish}, ` +
      `seed ${body.seed}, ${print}`);
    follow(was);
  } catch (e) {
    const gone = e.name === "AbortError";
    make("div", gone ? "note" : "note wrong", card, gone ? "stopped" : String(e.message || e));
    if (!gone) return;
  }
  if (chat) talk.push({role: "user", content: said}, {role: "assistant", content: answer});
}

async function send(event) {
  event.preventDefault();
  if (running) { running.abort(); return; }
  const said = at("said").value;
  if (!said.trim()) return;
  if (!at("model").options.length) await models();
  const all = [...at("model").options].map(o => o.value);
  const who = at("beside").checked && all.length > 1 ? all : [at("model").value];
  const own = make("div", "turn own", at("log"));
  make("div", "text", own, said);
  const turn = make("div", "turn answers" + (who.length > 1 ? " many" : ""), at("log"));
  at("said").value = "", at("send").textContent = "Stop", follow(true);
  running = new AbortController();
  await Promise.all(who.map(m => ask(m, said, make("div", "card", turn), running.signal)));
  running = null, at("send").textContent = "Send", at("said").focus();
}

at("form").addEventListener("submit", send);
at("said").addEventListener("keydown", e => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) at("form").requestSubmit();
});
at("clear").addEventListener("click", () => { talks = {}, at("log").replaceChildren(), at("said").focus(); });
at("open").addEventListener("click", () => {
  const shown = at("settings").classList.toggle("shown");
  at("open").setAttribute("aria-expanded", shown);
});
at("key").addEventListener("change", models);
models();
