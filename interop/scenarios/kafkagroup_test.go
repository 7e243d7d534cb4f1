//go:build interop

package interop

import (
	"fmt"
	"slices"
)

// group answers the requests of a consumer group, at its coordinator alone.
func (c *cluster) group(e *encoder, d *decoder, broker int, api int16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := d.string()
	code := int16(0)
	if broker != coordinator {
		code = codeNotCoordinator
	}
	switch api {
	case apiFindCoordinator:
		e.int16(0)
		e.int32(coordinator)
		e.string(c.hosts[coordinator])
		e.int32(kafkaPort)
	case apiJoinGroup:
		c.join(e, d, code, group)
	case apiSyncGroup:
		d.int32() // generation
		own := d.string()
		d.each(func() {
			if member := d.string(); member == own {
				c.assigned[group] = slices.Clone(d.bytes())
			} else {
				d.bytes()
			}
		})
		e.int16(code)
		e.bytes(c.assigned[group])
	case apiHeartbeat:
		d.int32() // generation
		d.string()
		e.int16(code)
	case apiLeaveGroup:
		d.string()
		e.int16(code)
	case apiOffsetCommit, apiOffsetFetch:
		c.offsets(e, d, code, group, api == apiOffsetCommit)
	}
}

// join makes whoever comes the leader and only member.
func (c *cluster) join(e *encoder, d *decoder, code int16, group string) {
	d.int32() // session timeout
	member := d.string()
	if member == "" {
		member = group + "-member"
	}
	d.string() // "consumer"
	var protocol string
	var metadata []byte
	d.each(func() {
		name, b := d.string(), d.bytes()
		if protocol == "" {
			protocol, metadata = name, b
		}
	})
	e.int16(code)
	e.int32(1) // generation
	e.string(protocol)
	e.string(member) // leader
	e.string(member)
	e.int32(1)
	e.string(member)
	e.bytes(metadata)
}

func (c *cluster) offsets(e *encoder, d *decoder, code int16, group string, commit bool) {
	if commit {
		d.int32()  // generation
		d.string() // member
		d.int64()  // retention
	}
	e.array(d, func() {
		topic := d.string()
		e.string(topic)
		e.array(d, func() {
			p := d.int32()
			key := fmt.Sprintf("%s/%s/%d", group, topic, p)
			e.int32(p)
			if commit {
				c.committed[key] = d.int64()
				d.string() // metadata
				e.int16(code)
				return
			}
			offset, known := c.committed[key]
			if !known {
				offset = -1
			}
			e.int64(offset)
			e.string("")
			e.int16(code)
		})
	})
}
