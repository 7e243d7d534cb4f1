// Produces and consumes with kafkajs, as an application does, and prints what it
// has read as JSON. SOCKS, "host:port", is a SOCKS5 proxy for all brokers;
// without it the brokers' names are resolved as the system does.
const { Kafka, logLevel, Partitioners } = require('kafkajs')
const socksFactory = require('../../examples/kafka-socks5/socket-factory.js')

const COUNT = 30

const options = {
  clientId: 'scenario',
  brokers: ['kafka-1.corp:9092'],
  logLevel: logLevel.WARN,
  retry: { retries: 2, initialRetryTime: 100 }
}
if (process.env.SOCKS) {
  const [host, port] = process.env.SOCKS.split(':')
  options.socketFactory = socksFactory({ host, port: Number(port) })
}
const kafka = new Kafka(options)

async function main () {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const messages = Array.from({ length: COUNT }, (_, n) => ({ value: `order ${n}`, partition: n % 3 }))
  await producer.send({ topic: 'orders', messages })
  await producer.disconnect()

  const read = []
  const consumer = kafka.consumer({ groupId: 'scenario', maxWaitTimeInMs: 200 })
  await consumer.connect()
  await consumer.subscribe({ topic: 'orders', fromBeginning: true })
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        read.push(`${partition}/${message.offset} ${message.value}`)
        if (read.length === COUNT) resolve()
      }
    }).catch(reject)
  })
  await consumer.disconnect()
  console.log(JSON.stringify(read.sort()))
}

main().catch(err => {
  console.error(err)
  process.exit(1)
})
