package main

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// proxy passes connections on to a registry and counts the bytes.
type proxy struct {
	addr     string
	up, down atomic.Int64
	half     int64         // of bytes in either direction, after which reached is closed; 0: never
	reached  chan struct{} // the transfer stands still from then on until let is called
	once     sync.Once
	gate     chan struct{}
	l        net.Listener
}

// newProxy listens on a free port. With half > 0 it holds every connection once so many bytes have passed.
func newProxy(ctx context.Context, target string, half int64) (*proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: l.Addr().String(), half: half, reached: make(chan struct{}), gate: make(chan struct{}), l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(ctx, c, target)
		}
	}()
	return p, nil
}

func (p *proxy) serve(ctx context.Context, c net.Conn, target string) {
	defer c.Close()
	s, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer s.Close()
	done := make(chan struct{}, 2)
	pass := func(dst, src net.Conn, n *atomic.Int64) {
		buf := make([]byte, 64<<10)
		for {
			k, err := src.Read(buf)
			if total := n.Add(int64(k)); p.half > 0 && total >= p.half {
				p.once.Do(func() { close(p.reached) })
				<-p.gate
			}
			if k > 0 {
				if _, werr := dst.Write(buf[:k]); werr != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		if t, ok := dst.(*net.TCPConn); ok {
			_ = t.CloseWrite()
		}
		done <- struct{}{}
	}
	go pass(s, c, &p.up)
	go pass(c, s, &p.down)
	<-done
	<-done
}

func (p *proxy) let()   { close(p.gate) }
func (p *proxy) close() { _ = p.l.Close() }
