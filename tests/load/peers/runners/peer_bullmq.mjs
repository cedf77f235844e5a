// BullMQ over Redis: `fast`, Redis as it comes; `durable`, every write synced.
//
// Jobs are added in bulk, one thousand a call; a worker process per core runs up to 64 jobs at once. Results are read from the
// stream of events, whose usual bound of 10,000 entries would lose some before they are read. What has completed is removed.
// Locks last five seconds and stalled jobs are looked for as often, instead of thirty, for tasks of milliseconds.

import { spawn } from 'node:child_process'
import { appendFileSync, closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { connect, createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'

// Packages lie in a folder of their own, which is not above this file.
const packages = createRequire(`${process.env.PEERS_NODE}/`)
const { Queue, QueueEvents, Worker } = await import(pathToFileURL(packages.resolve('bullmq')))
const BULK_JOBS = 1_000
const CONCURRENCY = 64
const STALLED_MS = 5_000
const EVENTS = 10_000_000

const here = fileURLToPath(import.meta.url)
const payload = (index) => String(index).padStart(16, '0') + String.fromCharCode(97 + (index % 26)).repeat(48)
const answer = (message) => process.stdout.write(`${JSON.stringify(message)}\n`)

/** The same task as function.py's. */
async function echo(job) {
  if (process.env.PEERS_TRACE) {
    appendFileSync(process.env.PEERS_TRACE, `${job.data.slice(0, 16)}\n`)
    await sleep(1000 * Number(process.env.PEERS_TASK_SECONDS))
  }
  return job.data
}

function work(port) {
  const concurrency = process.env.PEERS_TRACE ? 1 : CONCURRENCY
  const options = { connection: connection(port), concurrency, lockDuration: STALLED_MS, stalledInterval: STALLED_MS }
  new Worker('echo', echo, options).on('error', (error) => console.error(error.message))
}

const connection = (port) => ({ host: '127.0.0.1', port, maxRetriesPerRequest: null })

async function freePort() {
  const server = createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function waitForPort(port) {
  for (let tries = 0; tries < 300; tries += 1) {
    const open = await new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false))
      socket.unref()
      socket.on('connect', () => socket.destroy())
    })
    if (open) return
    await sleep(50)
  }
  throw new Error(`nothing answers on port ${port}`)
}

class Client {
  constructor(port) {
    const streams = { events: { maxLen: EVENTS } }
    const options = { connection: connection(port), streams }
    this.queue = new Queue('echo', { ...options, defaultJobOptions: { removeOnComplete: true, removeOnFail: true } })
    this.events = new QueueEvents('echo', { connection: connection(port) })
    for (const source of [this.queue, this.events]) source.on('error', (error) => console.error(error.message))
    this.runs = 0
  }

  /** Submits all, and gives each result to `take`. */
  async run(payloads, take) {
    this.runs += 1
    const prefix = `run${this.runs}-`
    const left = new Set(payloads.keys())
    let done
    const all = new Promise((resolve) => (done = resolve))
    const completed = ({ jobId, returnvalue }) => {
      if (!jobId.startsWith(prefix)) return
      const index = Number(jobId.slice(prefix.length))
      take(index, returnvalue)
      left.delete(index)
      if (left.size === 0) done()
    }
    this.events.on('completed', completed)
    for (let start = 0; start < payloads.length; start += BULK_JOBS) {
      const bulk = payloads.slice(start, start + BULK_JOBS)
      await this.queue.addBulk(bulk.map((data, i) => ({ name: 'echo', data, opts: { jobId: `${prefix}${start + i}` } })))
    }
    await all
    this.events.off('completed', completed)
  }
}

async function run(client, command) {
  const file = openSync(command.results, 'w')
  let held = ''
  const take = (index, result) => {
    held += `${index} ${result}\n`
    if (command.flush || held.length > 1 << 20) {
      writeSync(file, held)
      held = ''
    }
  }
  const started = performance.now()
  await client.run(Array.from({ length: command.tasks }, (_, index) => payload(index)), take)
  writeSync(file, held)
  const seconds = (performance.now() - started) / 1000
  closeSync(file)
  return seconds
}

async function latency(client, command) {
  const us = []
  const until = performance.now() + command.seconds * 1000
  while (us.length < command.tasks && performance.now() < until) {
    const sent = payload(us.length)
    const started = performance.now()
    await client.run([sent], (_, got) => {
      if (got !== sent) throw new Error(`the result of ${sent} is ${got}`)
    })
    us.push((performance.now() - started) * 1000)
  }
  return us
}

async function serve(variant, directory) {
  const port = await freePort()
  const durable = variant === 'durable' ? ['--appendonly', 'yes', '--appendfsync', 'always'] : []
  const redis = ['redis-server', '--port', String(port), '--bind', '127.0.0.1', '--dir', directory, ...durable]
  const worker = [process.execPath, here, '--worker', String(port)]
  const log = openSync(`${directory}/servers.log`, 'a')
  const start = ([program, ...args]) => spawn(program, args, { stdio: ['ignore', log, log] })
  const servers = [start(redis)]
  await waitForPort(port)
  for (let n = 0; n < availableParallelism(); n += 1) servers.push(start(worker))
  const client = new Client(port)
  await client.events.waitUntilReady()
  const { version } = JSON.parse(readFileSync(`${process.env.PEERS_NODE}/node_modules/bullmq/package.json`))
  const roles = {
    worker: { match: 'peer_bullmq.mjs --worker', restart: [worker] },
    server: { match: 'redis-server', restart: [redis] },
  }
  answer({ ready: { version: `bullmq ${version}`, roles } })
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    if (command.do === 'run') answer({ ran: { seconds: await run(client, command) } })
    else if (command.do === 'latency') answer({ latency: { us: await latency(client, command) } })
    else answer({ failed: `${command.do}: there is nothing to come back to` })
  }
  servers.forEach((server) => server.kill())
  process.exit(0)
}

const [first, second] = process.argv.slice(2)
if (first === '--worker') work(Number(second))
else if (first && second) await serve(first, second)
else {
  console.error('usage: peer_bullmq.mjs VARIANT DIRECTORY')
  process.exit(2)
}
