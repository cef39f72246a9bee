// What an operator sees of everybody with node-resque's own queue object. node overview.mjs HOST PORT
import { Queue } from "node-resque";

const [host, port] = process.argv.slice(2);
const queue = new Queue({ connection: { pkg: "ioredis", host, port: Number(port), database: 0 } });
await queue.connect();
console.log(
  JSON.stringify({
    queues: await queue.queues(),
    workers: await queue.workers(),
    working: await queue.allWorkingOn(),
    stats: await queue.stats(),
    failed: await queue.failed(0, -1),
  }),
);
await queue.end();
