package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"time"
)

// bulk sends random bytes and reads them back meanwhile.
func (r *run) bulk(ctx context.Context) outcome {
	c, err := r.tunnel(ctx, r.main)
	if err != nil {
		return fail("%v", err)
	}
	defer c.drop()
	var seed [32]byte
	_, _ = rand.Read(seed[:])
	begun := time.Now()
	sent := make(chan error, 1)
	go func() { sent <- upload(ctx, c, seed, r.opts.Bulk) }()
	err = download(ctx, c, seed, r.opts.Bulk)
	if err != nil {
		_ = c.Stream.SetDeadline(time.Now())
	}
	if writeErr := <-sent; err == nil && writeErr != nil {
		err = writeErr
	}
	if err != nil {
		return fail("%v", err)
	}
	took := time.Since(begun)
	return pass("%s each way, %.0f MiB/s", sizeText(r.opts.Bulk), float64(r.opts.Bulk)/(1<<20)/took.Seconds())
}

func sizeText(n int64) string { return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20)) }

func upload(ctx context.Context, c *client, seed [32]byte, size int64) error {
	random := mathrand.NewChaCha8(seed)
	b := make([]byte, 64<<10)
	for at := int64(0); at < size; {
		n := min(int64(len(b)), size-at)
		_, _ = random.Read(b[:n])
		if at == 0 {
			b[0] |= 0x80 // a zero is how the kit's own begins
		}
		if err := c.write(b[:n]); err != nil {
			return fmt.Errorf("write after %d bytes: %w", at, err)
		}
		at += n
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("write after %d bytes: %w", at, err)
		}
	}
	return nil
}

func download(ctx context.Context, c *client, seed [32]byte, size int64) error {
	random := mathrand.NewChaCha8(seed)
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < size; {
		n := min(int64(len(got)), size-at)
		if err := c.read(got[:n]); err != nil {
			return fmt.Errorf("read after %d bytes: %w", at, err)
		}
		_, _ = random.Read(want[:n])
		if at == 0 {
			want[0] |= 0x80
		}
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("byte %d is not what was sent", at+int64(differ(got[:n], want[:n])))
		}
		at += n
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("read after %d bytes: %w", at, err)
		}
	}
	return nil
}

// dials makes many tunnels at once and holds each until all are there.
func (r *run) dials(ctx context.Context) outcome {
	ctx, cancel := context.WithTimeout(ctx, 2*r.opts.Timeout)
	defer cancel()
	var all, made sync.WaitGroup
	made.Add(r.opts.Dials)
	here := make(chan struct{})
	errs := make([]error, r.opts.Dials)
	begun := time.Now()
	for n := range errs {
		all.Go(func() {
			c, err := r.dial1(ctx, r.main, firstGeneration, r.dest)
			made.Done()
			if err != nil {
				errs[n] = explained(err)
				return
			}
			defer c.drop()
			select {
			case <-here:
			case <-ctx.Done():
				errs[n] = errors.New("it waited for the others in vain")
				return
			}
			if err := c.ask(fmt.Appendf(nil, "tunnel %d of many", n)); err != nil {
				errs[n] = fmt.Errorf("echo: %w", err)
			}
		})
	}
	made.Wait()
	took := time.Since(begun)
	close(here)
	all.Wait()
	wrong := map[string]int{}
	for _, err := range errs {
		if err != nil {
			wrong[err.Error()]++
		}
	}
	var list []string
	for text, n := range wrong {
		list = append(list, fmt.Sprintf("%d of %d: %s", n, r.opts.Dials, text))
	}
	return fails(list, "%d in %s", r.opts.Dials, took.Round(time.Millisecond))
}

// carries wants a tunnel to carry bytes still.
func carries(c *client, what string) error {
	if err := c.ask([]byte("is " + what + " still there?")); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it has ended")
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
