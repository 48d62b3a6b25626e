// A database written from Node, with the protocol of rocksdict_database.py:
//
//   node_database.js write DIR SEED   write until stdin ends; one JSON line before and one after each commit
//   node_database.js dump DIR         open DIR as its owner would and print all of it
//
// This package offers the default column family, puts, deletes and batches. It does not tell the latest sequence number;
// while one process writes and never reopens, that is the number of operations so far.

const { promisify } = require('util')
const rocksdb = require('rocksdb')

const FAMILY = 'default'

// mulberry32: a seed gives the same operations on every machine.
function generator (seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

function operations (random) {
  const below = n => Math.floor(random() * n)
  const key = () => Buffer.from('key-' + String(below(400)).padStart(4, '0'))
  return Array.from({ length: 1 + below(7) }, () => {
    if (random() < 0.8) {
      return ['put', FAMILY, key().toString('hex'), Buffer.alloc(1 + below(300), below(256)).toString('hex')]
    }
    return ['delete', FAMILY, key().toString('hex')]
  })
}

const say = line => process.stdout.write(JSON.stringify(line) + '\n')

async function opened (path, options) {
  const db = rocksdb(path)
  await promisify(db.open.bind(db))(options)
  return db
}

async function write (path, seed) {
  // Small, so that flushes, compactions and new logs happen within a short run.
  const db = await opened(path, { createIfMissing: true, writeBufferSize: 64 * 1024 })
  const batch = promisify(db.batch.bind(db))
  const random = generator(seed)
  let ended = false
  let sequence = 0
  process.stdin.on('end', () => { ended = true }).resume()
  while (!ended) {
    const ops = operations(random)
    say({ intent: ops })
    await batch(ops.map(([kind, , key, value]) => ({
      type: kind === 'put' ? 'put' : 'del',
      key: Buffer.from(key, 'hex'),
      value: value === undefined ? undefined : Buffer.from(value, 'hex')
    })))
    sequence += ops.length
    say({ sequence })
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  await promisify(db.close.bind(db))()
}

async function dump (path) {
  const db = await opened(path, { createIfMissing: false })
  const family = {}
  const iterator = db.iterator({ keyAsBuffer: true, valueAsBuffer: true })
  await new Promise((resolve, reject) => {
    const next = () => iterator.next((error, key, value) => {
      if (error) return reject(error)
      if (key === undefined) return iterator.end(resolve)
      family[key.toString('hex')] = value.toString('hex')
      next()
    })
    next()
  })
  console.log(JSON.stringify({ sequence: null, families: { [FAMILY]: family } }))
  await promisify(db.close.bind(db))()
}

const [what, path, seed] = process.argv.slice(2)
const done = what === 'write' ? write(path, Number(seed)) : dump(path)
done.catch(error => {
  console.error(error)
  process.exit(1)
})
