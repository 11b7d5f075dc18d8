package control

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/waybill-ml/waybill/internal/owner"
)

// maxControlConns bounds the connections to the control socket at a time.
const maxControlConns = 16

// door hands on only connections of users who may give orders to this agent, and only so many at a time. The socket's
// mode says the same; a directory that somebody opened up does not.
type door struct {
	net.Listener
	allowed []int // user ids
	peer    func(net.Conn) (uid, pid int, ok bool)
	log     *slog.Logger
	open    atomic.Int32
}

func Guard(l net.Listener, log *slog.Logger) *door {
	return &door{Listener: l, allowed: []int{os.Getuid(), 0}, peer: peerUID, log: log}
}

// Accept implements net.Listener.
func (g *door) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, pid, known := g.peer(c)
		switch {
		case known && !slices.Contains(g.allowed, uid):
			g.log.Warn("another user asked on the control socket", "uid", uid, "process.pid", pid)
		case g.open.Load() >= maxControlConns:
			g.log.Warn("too many connections to the control socket", "uid", uid, "process.pid", pid)
		default:
			g.open.Add(1)
			return &counted{Conn: c, open: &g.open}, nil
		}
		_ = c.Close()
	}
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// errStranger says that the socket is not one of the agent of this state directory.
var errStranger = errors.New("the control socket is held by another user")

// sameAgent refuses a socket that a stranger put into the agent's place: it must be held by this user, by root, or by
// the owner of the state directory.
func sameAgent(c net.Conn, stateDir string) error {
	uid, pid, known := peerUID(c)
	if !known || uid == os.Getuid() || uid == 0 {
		return nil
	}
	if owner, ok := owner.Of(stateDir); ok && owner == uid {
		return nil
	}
	return fmt.Errorf("%w (user id %d, process %d)", errStranger, uid, pid)
}
