package cli

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ratelimit"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/registry"
)

// transfers is what the connections of one command share.
type transfers struct {
	once    sync.Once
	limit   *ratelimit.Limiter
	err     error
	retries atomic.Int64
}

// transferFlags adds the flags of the verbs that move blobs.
func transferFlags(more ...ucli.Flag) []ucli.Flag {
	return append(more,
		&ucli.IntFlag{Name: "jobs", Value: 4, Usage: "transfers at a time, of blobs and of parts of one blob"},
		&ucli.StringFlag{Name: "limit-rate", Usage: "`RATE` of all transfers together, in bytes in a second: 500K, 10M, 1.5G", EnvVars: []string{"WAYBILL_LIMIT_RATE"}},
		&ucli.DurationFlag{Name: "stall", Usage: "take a download up anew when nothing came for this `TIME` (default 30s)"})
}

// remoteOptions are those of every registry that the command talks to: one rate limit for all, and each repetition a line.
func (c *Call) remoteOptions() (registry.RemoteOptions, error) {
	t := &c.moved
	t.once.Do(func() {
		s := c.String("limit-rate")
		if s == "" {
			return
		}
		rate, err := ratelimit.Parse(s)
		if err != nil {
			t.err = diag.Wrap(diag.Usage, err, "--limit-rate")
			return
		}
		t.limit = ratelimit.New(rate)
	})
	if t.err != nil {
		return registry.RemoteOptions{}, t.err
	}
	if c.Duration("stall") < 0 || c.IsSet("jobs") && c.Int("jobs") < 1 {
		return registry.RemoteOptions{}, diag.New(diag.Usage, "--stall and --jobs must be positive")
	}
	return c.withAccess(registry.RemoteOptions{
		PlainHTTP: c.Bool("plain-http"), UserAgent: "waybill/" + version.Number,
		Stall: c.Duration("stall"), Connections: c.Int("jobs"), Limit: t.limit, Notify: c.notice,
	})
}

// notice shows what happened on the way.
func (c *Call) notice(n registry.Notice) {
	label := "note"
	if n.Next > 0 {
		c.moved.retries.Add(1)
		label = "retry"
	}
	clear := ""
	if c.UI.Err.TTY && !c.UI.JSON {
		clear = "\r\x1b[2K" // of the progress line
	}
	c.UI.Say("%s  %-10s %s", clear, label, n)
}

// again adds the command that goes on where this one stopped, when the registry or the user is why it stopped.
func (c *Call) again(ctx context.Context, err error) error {
	code := diag.CodeOf(err)
	if errors.Is(ctx.Err(), context.Canceled) {
		code = diag.Interrupted
	}
	if code != diag.Interrupted && (code != diag.Registry || !strings.Contains(diag.Render(err), "the next run goes on")) {
		return err
	}
	words := append([]string{"waybill", c.Path}, c.Args...)
	for _, f := range []string{"out", "limit-rate"} {
		if v := c.String(f); v != "" {
			words = append(words, "--"+f, v)
		}
	}
	for _, r := range c.Strings("role") {
		words = append(words, "--role", r)
	}
	for _, f := range []string{"force", "plain-http", "no-evidence"} {
		if c.Bool(f) {
			words = append(words, "--"+f)
		}
	}
	return diag.Wrap(code, err, "%s", c.Path).Hint("%s   # goes on with what is missing", strings.Join(words, " "))
}
