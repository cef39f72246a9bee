// What an operator does with node-resque's own queue object. node failed.mjs HOST PORT list|retry
// prints resque:failed as JSON; "retry" then puts each job back on its queue, off that list.
import { Queue } from "node-resque";

const [host, port, what] = process.argv.slice(2);
const queue = new Queue({ connection: { pkg: "ioredis", host, port: Number(port), database: 0 } });
await queue.connect();
const failed = await queue.failed(0, -1);
if (what === "retry") {
  for (const job of failed) {
    await queue.retryAndRemoveFailed(job);
  }
}
console.log(JSON.stringify({ failed, left: await queue.failedCount() }));
await queue.end();
