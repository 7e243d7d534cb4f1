//go:build interop

package interop

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	kafkaTopic   = "orders"
	kafkaBrokers = 3
	kafkaPort    = 9092
	// coordinator is the broker of all consumer groups: not the one that clients
	// are told of.
	coordinator = 2
)

// cluster is three brokers that know themselves by names which only the far end
// resolves. Partition p of the one topic is led by broker p+1, and no other
// takes or gives its records. Groups have one member.
type cluster struct {
	t     *testing.T
	hosts []string // by broker, from 1

	mu        sync.Mutex
	batches   [kafkaBrokers][][]byte // by partition
	next      [kafkaBrokers]int64    // offset
	committed map[string]int64
	assigned  map[string][]byte
	served    map[int]int // requests for records, by broker
	more      chan struct{}
}

// startCluster starts the brokers and returns the mappings to them.
func startCluster(t *testing.T) (*cluster, map[string]string) {
	t.Helper()
	c := &cluster{
		t:         t,
		hosts:     []string{""},
		committed: map[string]int64{}, assigned: map[string][]byte{}, served: map[int]int{},
		more: make(chan struct{}),
	}
	mappings := map[string]string{}
	for n := 1; n <= kafkaBrokers; n++ {
		host := fmt.Sprintf("kafka-%d.corp", n)
		c.hosts = append(c.hosts, host)
		mappings[net.JoinHostPort(host, strconv.Itoa(kafkaPort))] = accepting(t, func(conn net.Conn) { c.serve(n, conn) })
	}
	return c, mappings
}

// leaders returns the brokers that took and gave records.
func (c *cluster) leaders() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.served))
}

// serve answers a connection's requests in their order.
func (c *cluster) serve(broker int, conn net.Conn) {
	for {
		message, err := readMessage(conn)
		if err != nil {
			return // the client is gone
		}
		d := &decoder{b: message}
		api, version, correlation := d.int16(), d.int16(), d.int32()
		e := &encoder{}
		e.int32(correlation)
		silent, err := c.answer(e, d, broker, api, version)
		if err != nil {
			c.t.Errorf("broker %d: request %d of version %d: %v", broker, api, version, err)
			return
		}
		if silent {
			continue
		}
		if err := writeMessage(conn, e.b); err != nil {
			return
		}
	}
}

// answer writes the answer to a request; silent: none is expected.
func (c *cluster) answer(e *encoder, d *decoder, broker int, api, version int16) (silent bool, err error) {
	known, ok := kafkaVersions[api]
	if api == apiVersions {
		// Whatever the version: a client that is newer learns what there is.
		c.versions(e, version != known)
		return false, nil
	}
	if !ok || version != known {
		return false, fmt.Errorf("not of version %d", known)
	}
	d.string() // the client's id
	switch api {
	case apiProduce:
		silent = c.produce(e, d, broker)
	case apiFetch:
		c.fetch(e, d, broker)
	case apiListOffsets:
		c.listOffsets(e, d, broker)
	case apiMetadata:
		c.metadata(e, d)
	default:
		c.group(e, d, broker, api)
	}
	return silent, d.err
}

func (c *cluster) versions(e *encoder, newer bool) {
	code := int16(0)
	if newer {
		code = codeUnsupportedVersion
	}
	e.int16(code)
	e.int32(int32(len(kafkaVersions)))
	for _, api := range slices.Sorted(maps.Keys(kafkaVersions)) {
		e.int16(api)
		e.int16(kafkaVersions[api])
		e.int16(kafkaVersions[api])
	}
}

// metadata tells where the brokers are: what makes a single listener break.
func (c *cluster) metadata(e *encoder, d *decoder) {
	var topics []string
	d.each(func() { topics = append(topics, d.string()) })
	if topics == nil {
		topics = []string{kafkaTopic}
	}
	e.int32(kafkaBrokers)
	for n := 1; n <= kafkaBrokers; n++ {
		e.int32(int32(n))
		e.string(c.hosts[n])
		e.int32(kafkaPort)
		e.int16(-1) // no rack
	}
	e.int32(1) // controller
	e.int32(int32(len(topics)))
	for _, topic := range topics {
		known := topic == kafkaTopic
		e.int16(map[bool]int16{true: 0, false: codeUnknownTopic}[known])
		e.string(topic)
		e.int8(0) // not internal
		if !known {
			e.int32(0)
			continue
		}
		e.int32(kafkaBrokers)
		for p := range int32(kafkaBrokers) {
			e.int16(0)
			e.int32(p)
			e.int32(p + 1) // leader, the only replica
			for range 2 {  // replicas, and those in sync
				e.int32(1)
				e.int32(p + 1)
			}
		}
	}
}

// leads returns the error code for a request for a partition's records.
func (c *cluster) leads(broker int, topic string, partition int32) int16 {
	switch {
	case topic != kafkaTopic || partition < 0 || partition >= kafkaBrokers:
		return codeUnknownTopic
	case int(partition)+1 != broker:
		return codeNotLeader
	}
	c.served[broker]++
	return 0
}

// Of a record batch only this is looked at: the offset of the first record and
// the number of the last, neither of which its checksum covers or needs.
const (
	batchOffset = 0
	batchLast   = 8 + 4 + 4 + 1 + 4 + 2
	batchHeader = 61
)

func (c *cluster) produce(e *encoder, d *decoder, broker int) (silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.string() // transaction
	acks := d.int16()
	d.int32() // timeout
	e.array(d, func() {
		topic := d.string()
		e.string(topic)
		e.array(d, func() {
			p := d.int32()
			batch := slices.Clone(d.bytes())
			code, offset := c.leads(broker, topic, p), int64(-1)
			if code == 0 && len(batch) >= batchHeader {
				offset = c.next[p]
				binary.BigEndian.PutUint64(batch[batchOffset:], uint64(offset))
				c.next[p] += int64(binary.BigEndian.Uint32(batch[batchLast:])) + 1
				c.batches[p] = append(c.batches[p], batch)
				close(c.more)
				c.more = make(chan struct{})
			}
			e.int32(p)
			e.int16(code)
			e.int64(offset)
			e.int64(-1) // time of appending
		})
	})
	e.int32(0) // throttle
	return acks == 0
}

// fetch waits for records as long as the client has it, once.
func (c *cluster) fetch(e *encoder, d *decoder, broker int) {
	d.int32() // replica
	wait := time.NewTimer(time.Duration(d.int32()) * time.Millisecond)
	defer wait.Stop()
	d.take(4 + 4 + 1) // least and most bytes, isolation
	start, request := len(e.b), *d
	c.mu.Lock()
	defer c.mu.Unlock()
	for waited := false; ; waited = true {
		e.b, *d = e.b[:start], request
		if c.records(e, d, broker) > 0 || waited {
			return
		}
		more := c.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-wait.C:
		case <-c.t.Context().Done():
		}
		c.mu.Lock()
	}
}

// records writes the answer to a fetch and returns how many bytes of records
// are in it.
func (c *cluster) records(e *encoder, d *decoder, broker int) int {
	total := 0
	e.int32(0) // throttle
	e.array(d, func() {
		topic := d.string()
		e.string(topic)
		e.array(d, func() {
			p, offset := d.int32(), d.int64()
			d.int32() // most bytes
			code := c.leads(broker, topic, p)
			var records []byte
			high := int64(-1)
			if code == 0 {
				high = c.next[p]
				for _, b := range c.batches[p] {
					if int64(binary.BigEndian.Uint64(b))+int64(binary.BigEndian.Uint32(b[batchLast:])) >= offset {
						records = append(records, b...)
					}
				}
			}
			e.int32(p)
			e.int16(code)
			e.int64(high)
			e.int64(high) // last stable
			e.int32(-1)   // no aborted transactions
			e.bytes(records)
			total += len(records)
		})
	})
	return total
}

func (c *cluster) listOffsets(e *encoder, d *decoder, broker int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.int32() // replica
	e.array(d, func() {
		topic := d.string()
		e.string(topic)
		e.array(d, func() {
			p, timestamp := d.int32(), d.int64()
			code, offset := c.leads(broker, topic, p), int64(0)
			if code == 0 && timestamp == -1 {
				offset = c.next[p]
			}
			e.int32(p)
			e.int16(code)
			e.int64(-1)
			e.int64(offset)
		})
	})
}
