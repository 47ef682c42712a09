// BullMQ as its documentation has it fast: `work SOCKET`, or `drive SOCKET` with orders on stdin.
//
// An order is a workload and its size; the answer is the seconds it took. The end of the last job of
// each workflow, whose result is stored by then, is pushed to a list; who waits for a single job reads
// its result, too.
"use strict";

const readline = require("node:readline");
const { FlowProducer, Job, Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

const [role, path] = process.argv.slice(2);
const NAME = "peer";
const DONE = "peer:done";
const CONCURRENCY = 50;
const LIMIT_S = 120;
const connection = { path, maxRetriesPerRequest: null };
const redis = new Redis(connection);
const flows = new FlowProducer({ connection });
const opts = { removeOnComplete: true };
const job = (name, data = {}, children = undefined) => ({
  name,
  queueName: NAME,
  data,
  opts,
  children,
});

async function run(one) {
  if (one.name === "begin") {
    const children = Array.from({ length: one.data.width }, () => job("step"));
    await flows.add(job("end", {}, children));
  }
  return { status: "ok" };
}

async function wait(count) {
  for (let at = 0; at < count; at += 1) {
    if ((await redis.blpop(DONE, LIMIT_S)) === null) throw new Error("a workflow did not end");
  }
}

async function single(queue) {
  const { id } = await queue.add("end", {});
  await wait(1);
  const { returnvalue } = await Job.fromId(queue, id);
  if (returnvalue.status !== "ok") throw new Error("a result is missing");
}

function work() {
  const worker = new Worker(NAME, run, { connection, concurrency: CONCURRENCY });
  worker.on("completed", (one) => one.name === "end" && redis.rpush(DONE, 1));
}

async function drive() {
  const queue = new Queue(NAME, { connection });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [workload, size] = line.split(" ");
    const begun = process.hrtime.bigint();
    if (workload === "single") {
      await single(queue);
    } else if (workload === "chain") {
      let flow = job("step");
      for (let at = 1; at < size - 1; at += 1) flow = job("step", {}, [flow]);
      await flows.add(job("end", {}, [flow]));
      await wait(1);
    } else {
      const count = workload === "fan" ? 1 : Number(size);
      const width = workload === "fan" ? Number(size) : 2;
      const jobs = Array.from({ length: count }, () => ({ name: "begin", data: { width }, opts }));
      await queue.addBulk(jobs);
      await wait(count);
    }
    console.log(Number(process.hrtime.bigint() - begun) / 1e9);
  }
  process.exit(0);
}

if (role === "work") work();
else drive();
