package registry

import (
	"io"
	"net"
	"time"
)

// idleLimit ends a connection on which nothing moved in either direction.
const idleLimit = 2 * time.Minute

// idleConn moves its deadlines with every transfer, so that a long one lives and a stalled one ends: one that sends when
// the other side takes nothing for the time of stall, one that waits for an answer after idleLimit.
type idleConn struct {
	net.Conn
	stall time.Duration
	idle  time.Duration
}

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *idleConn) sending() error {
	now := time.Now()
	if err := c.SetReadDeadline(now.Add(c.idle)); err != nil { // the answer comes after the last byte
		return err
	}
	return c.SetWriteDeadline(now.Add(c.stall))
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.sending(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// sendPiece is what must get away within the stall limit: 9 KB/s are enough for the default.
const sendPiece = 256 << 10

// ReadFrom implements io.ReaderFrom: what net/http copies from a file goes by the connection's own way (sendfile).
func (c *idleConn) ReadFrom(r io.Reader) (int64, error) {
	left := int64(1<<63 - 1)
	lr, limited := r.(*io.LimitedReader)
	if limited {
		left, r = lr.N, lr.R
	}
	var total int64
	for left > 0 {
		if err := c.sending(); err != nil {
			return total, err
		}
		n, err := io.Copy(c.Conn, &io.LimitedReader{R: r, N: min(left, sendPiece)})
		total += n
		left -= n
		if limited {
			lr.N = left
		}
		if err != nil {
			return total, err
		}
		if n == 0 { // the end
			return total, nil
		}
	}
	return total, nil
}
