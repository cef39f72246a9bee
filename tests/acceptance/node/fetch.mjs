// Node's own fetch (undici) and http client as clients of the relay.
// node fetch.mjs URL NAME [FILE]: runs one of `visits`, prints what it gave as one line of JSON.
import { createHash } from "node:crypto";
import diagnostics from "node:diagnostics_channel";
import { writeFile } from "node:fs/promises";
import http from "node:http";

const [url, name, file] = process.argv.slice(2);

// Connections that fetch has opened so far.
let connects = 0;
diagnostics.subscribe("undici:client:connected", () => (connects += 1));

// tests/acceptance/flask_app.py `pattern`.
function pattern(size) {
  const blocks = [];
  for (let number = 0; number < size / 32; number++)
    blocks.push(createHash("sha256").update(String(number)).digest());
  return Buffer.concat(blocks).subarray(0, size);
}

const UPLOAD = pattern(2 * 1024 * 1024);
const digest = (data) => createHash("sha256").update(data).digest("hex");

function stream(data, size = 65536) {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= data.length) return controller.close();
      controller.enqueue(data.subarray(at, at + size));
      at += size;
    },
  });
}

// One request of the http module; gives status, header fields and body.
function ask(path, { body, ...options }) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, options, (response) => {
      const blocks = [];
      response.on("data", (block) => blocks.push(block));
      response.on("error", reject);
      response.on("end", () =>
        resolve({
          status: response.statusCode,
          headers: response.headers,
          raw: response.rawHeaders,
          body: Buffer.concat(blocks),
          reused: request.reusedSocket,
          continued: request.continued === true,
        }),
      );
    });
    request.on("error", reject);
    if (options.headers?.expect) {
      request.on("continue", () => {
        request.continued = true;
        request.end(body);
      });
      request.flushHeaders();
    } else request.end(body);
  });
}

const visits = {
  async keeps() {
    const statuses = [];
    const seen = async (path, options) => {
      const answer = await fetch(url + path, options);
      statuses.push(answer.status);
      return answer;
    };
    const text = await (await seen("/")).text();
    const rows = (await (await seen("/stream")).text()).split("\n").length;
    await seen("/nothing");
    const length = (await seen("/large", { method: "HEAD" })).headers.get("content-length");
    await (await seen("/file", { headers: { "If-None-Match": '"fixed-etag"' } })).text();
    await (await seen("/missing")).text();
    await (await seen("/say/x", { method: "POST", body: "x" })).text();
    const unpacked = await (await seen("/encoded")).text();
    const several = (await seen("/headers")).headers.get("x-multi");
    const large = digest(Buffer.from(await (await seen("/large")).arrayBuffer()));
    return { statuses, text, rows, length, unpacked: unpacked.length, several, large, connects };
  },

  async uploads() {
    const send = async (body, more) =>
      (await fetch(`${url}/raw`, { method: "PUT", body, ...more })).json();
    return {
      buffer: await send(UPLOAD),
      blob: await send(new Blob([UPLOAD])),
      stream: await send(stream(UPLOAD), { duplex: "half" }),
      empty: await send(stream(Buffer.alloc(0)), { duplex: "half" }),
      none: await send(undefined),
    };
  },

  async forms() {
    const send = async (path, body, headers) =>
      (await fetch(url + path, { method: "POST", body, headers })).json();
    const form = new FormData();
    form.append("text", "ü\r\nx");
    form.append("file", new File([UPLOAD], 'ü "x".bin', { type: "a/b" }));
    const json = { "content-type": "application/json" };
    return {
      fields: await send("/form", new URLSearchParams({ a: "ü &=", b: "" })),
      multipart: await send("/form", form),
      json: await send("/json", JSON.stringify({ k: "ü" }), json),
    };
  },

  async redirects() {
    const found = {};
    for (const code of [301, 302, 303, 307, 308]) {
      const answer = await fetch(`${url}/redirect/${code}`);
      found[code] = [answer.redirected, (await answer.json()).path];
    }
    const manual = await fetch(`${url}/redirect/302`, { redirect: "manual" });
    found.manual = [manual.status, manual.headers.get("location")];
    return found;
  },

  async cookies() {
    return (await fetch(`${url}/cookies`, { method: "POST" })).headers.getSetCookie();
  },

  async many() {
    const words = Array.from({ length: 60 }, (_, number) => `word-${number}`);
    const say = async (word) => (await (await fetch(`${url}/say/${word}`)).json()).word;
    return { same: String(await Promise.all(words.map(say))) === String(words) };
  },

  // The test keeps all workers busy until the queue is empty again.
  async aborts() {
    const controller = new AbortController();
    const waiting = fetch(`${url}/say/never`, { signal: controller.signal });
    setTimeout(() => controller.abort(), 300);
    const why = [await waiting.catch((error) => error.name)];
    const signal = AbortSignal.timeout(300);
    why.push(
      await fetch(`${url}/say/never`, { method: "POST", body: "x", signal }).catch(
        (error) => error.name,
      ),
    );
    return why;
  },

  async leaves() {
    const answer = await fetch(`${url}/large`);
    const reader = answer.body.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    return { some: value.length > 0, next: (await (await fetch(`${url}/say/next`)).json()).word };
  },

  // FILE is what lets the second event go.
  async events() {
    const answer = await fetch(`${url}/events/node`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.endsWith("\n\n")) text += (await reader.read()).value;
    const first = text;
    await writeFile(file, "");
    for (text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return { type: answer.headers.get("content-type"), first, second: text };
      text += value;
    }
  },

  async too_much() {
    const body = Buffer.alloc(17 * 1024 * 1024);
    const statuses = [(await fetch(`${url}/raw`, { method: "POST", body })).status];
    const half = { method: "POST", body: stream(body), duplex: "half" };
    statuses.push((await fetch(`${url}/raw`, half)).status);
    statuses.push((await fetch(`${url}/say/next`)).status);
    return statuses;
  },

  // The http module, one socket for all.
  async agent() {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const chunked = { "Transfer-Encoding": "chunked" };
    const asked = [
      ["/say/a", {}],
      ["/raw", { method: "PUT", body: UPLOAD }],
      ["/raw", { method: "PUT", body: UPLOAD, headers: chunked }],
      ["/raw", { method: "PUT", body: UPLOAD, headers: { expect: "100-continue" } }],
      ["/large", { method: "HEAD" }],
      ["/nothing", {}],
      ["/file", { headers: { range: "bytes=0-9" } }],
      ["/stream", {}],
      ["/headers", {}],
      ["/say/b", {}],
    ];
    const answers = [];
    for (const [path, options] of asked) answers.push(await ask(path, { agent, ...options }));
    agent.destroy();
    return {
      statuses: answers.map((answer) => answer.status),
      reused: answers.map((answer) => answer.reused),
      continued: answers[3].continued,
      uploads: answers.slice(1, 4).map((answer) => JSON.parse(answer.body).sha256),
      rows: answers[7].body.toString().split("\n").length,
      links: answers[8].raw.filter((_, at, all) => at % 2 && all[at - 1] === "Link"),
      last: JSON.parse(answers[9].body).word,
    };
  },
};

console.log(JSON.stringify(await visits[name]()));
// Kept connections would keep the process for seconds.
process.exit(0);
