// A normal node-resque worker whose job answers requests of the relay: it knows nothing of
// queuerelay but docs/protocol.md. node worker.mjs HOST PORT QUEUE...
import { Redis } from "ioredis";
import { Worker } from "node-resque";

const [host, port, ...queues] = process.argv.slice(2);
// Replies go out on a connection of the job's own, as an application would have one.
const replies = new Redis(Number(port), host);

const answers = {
  "/echo": (request) => ({
    headers: [["content-type", "application/json"]],
    body: JSON.stringify(request),
  }),
  "/text": (request) => ({ body: request.body }),
  "/bytes": (request) => ({
    status: 201,
    headers: [["Content-Type", "application/octet-stream"]],
    body: bytesOf(request).toString("base64"),
    body_encoding: "base64",
  }),
  "/pairs": () => ({
    status: 202,
    headers: [
      ["Content-Type", "text/html; charset=utf-8"],
      ["Set-Cookie", "a=1"],
      ["X-Between", "caf\u00e9"],
      ["Set-Cookie", "b=2; Path=/"],
    ],
    body: "<p>pairs</p>",
  }),
  "/object": () => ({
    status: 404,
    headers: { "Content-Type": "text/html", "Set-Cookie": ["a=1", "b=2"], "X-One": "one" },
    body: "<p>object</p>",
  }),
  "/bare": () => ({}),
  "/raise": () => {
    throw new TypeError("the job broke: \u00fc\u20ac\ud83d\ude42");
  },
};

function bytesOf(request) {
  const encoding = request.body_encoding === "base64" ? "base64" : "utf-8";
  return Buffer.from(request.body ?? "", encoding);
}

const jobs = {
  RequestProcessor: {
    perform: async (request) => {
      const reply = answers[request.url.split("?")[0]](request);
      const json = JSON.stringify({ node_id: request.node_id, ...reply });
      await replies.rpush(request.reply_to, json);
    },
  },
};

const connection = { pkg: "ioredis", host, port: Number(port), database: 0 };
// The time-out is how long it sleeps where the queue is empty: the one thing set for tests.
const worker = new Worker({ connection, queues, timeout: 20 }, jobs);
worker.on("error", (error) => console.error("error", error));
worker.on("failure", (queue, job, error) => console.error("failure", error.message));
await worker.connect();
await worker.start();
console.log("ready");

process.once("SIGTERM", async () => {
  await worker.end();
  await replies.quit();
});
