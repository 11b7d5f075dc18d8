package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/publish/lock"
	"github.com/waybill-ml/waybill/oci/publish/lock/gitlock"
	"github.com/waybill-ml/waybill/oci/publish/lock/s3lock"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
)

// lockFlags are those of every verb that writes a record.
func lockFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringFlag{Name: "lock", EnvVars: []string{"WAYBILL_LOCK"}, Usage: "`URI` of the publishers' locks; default: the environment's, else this machine"},
		&ucli.DurationFlag{Name: "lock-wait", Value: 90 * time.Second, Usage: "how `LONG` to wait for another publisher; a dead one is waited out in a minute"},
		&ucli.StringFlag{Name: "steal-lock", Usage: "take the lock from the holder with this `ID`, who is known to be gone"},
	}
}

// enter takes the publishers' lock of a channel. What it gives sets no tag without it; leave gives it back. A dry run takes none.
func (x *change) enter(ctx context.Context, c *Call, ref registry.Ref, p registry.Place, channel string) (_ publish.Place, leave func(), err error) {
	if c.Bool("dry-run") {
		return p, func() {}, nil
	}
	u, err := x.lockURI(c, channel)
	if err != nil {
		return nil, nil, err
	}
	repo := repoPath(ref)
	if ref.Path != "" {
		repo = filepath.ToSlash(c.Abs(ref.Path)) + "/" + ref.Repo
	}
	name := lock.Name(repo, channel)
	o := lock.Options{
		Who: c.whoami(), What: c.Path + " " + channel, Wait: c.Duration("lock-wait"), Steal: c.String("steal-lock"),
		Waiting: func(h lock.Holder) { c.UI.Say("waiting for the lock of channel %s, which is held by %s", channel, h) },
	}
	held, closing, err := c.take(ctx, u, name, p, o)
	var busy *lock.HeldError
	if errors.As(err, &busy) {
		d := diag.Wrap(diag.Failure, err, "channel %s: another publisher is at work", channel).Line("lock %s", u.Raw)
		if busy.Free > 0 {
			d.Line("without a sign of life from it the lock is free in %s", ui.Duration(busy.Free.Round(time.Second)))
		}
		d.Hint("wait for it: --lock-wait 5m")
		if busy.Holder.ID != "" && u.Kind != lock.KindFile {
			d.Hint("when that publisher is known to be gone: --steal-lock %s", busy.Holder.ID)
		}
		return nil, nil, d
	}
	if err != nil {
		return nil, nil, err
	}
	c.UI.Why("the lock of channel %s is held: %s, id %s", channel, u.Raw, held.ID())
	return publish.Guarded(p, held), func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		if err := errors.Join(held.Release(ctx), closing()); err != nil {
			c.UI.Warn("the lock %s could not be given back, and is free in a minute: %v", u.Raw, err)
		}
	}, nil
}

// lockURI is where the lock is: what the environment says, which a flag cannot change, else the flag, else this machine.
func (x *change) lockURI(c *Call, channel string) (lock.URI, error) {
	flag, demanded := c.String("lock"), x.env.Lock
	if x.name == "" { // a verb about a channel: its environment is known where the signed environments are at hand
		var err error
		if demanded, err = c.lockOfChannel(x.doc, channel); err != nil {
			return lock.URI{}, err
		}
	}
	switch {
	case demanded != "" && flag != "" && flag != demanded:
		return lock.URI{}, diag.New(diag.Usage, "--lock %s: the environment demands %s", flag, demanded).Line("two publishers with different locks would not see each other").
			Hint("leave --lock and WAYBILL_LOCK away")
	case demanded != "":
		flag = demanded
	case flag == "":
		dir, err := c.Env.DataDir()
		if err != nil {
			return lock.URI{}, diag.Wrap(diag.Failure, err, "find the folder for locks")
		}
		path := filepath.ToSlash(filepath.Join(dir, "locks"))
		return lock.URI{Kind: lock.KindFile, Path: path, Raw: "file:" + path}, nil
	}
	u, err := lock.Parse(flag)
	if err != nil {
		return u, diag.Wrap(diag.Usage, err, "--lock").Hint("--lock s3://bucket/locks?region=eu-central-1")
	}
	return u, nil
}

// lockOfChannel looks into the signed environments, if they are here, for the lock of the environment whose channel it is.
func (c *Call) lockOfChannel(doc *trust.Document, channel string) (string, error) {
	if _, err := os.Stat(c.Abs(c.String("environments"))); err != nil && !c.IsSet("environments") {
		c.UI.Why("no %s here: which lock the environment demands is not known", c.String("environments"))
		return "", nil
	}
	s, err := c.loadEnvironments(doc)
	if err != nil {
		return "", err
	}
	found := ""
	for _, n := range s.Document.Names() {
		e := s.Document.Environments[n]
		if e.Channel != channel || e.Lock == "" {
			continue
		}
		if found != "" && found != e.Lock {
			return "", diag.New(diag.Usage, "channel %s belongs to environments with different locks: %s and %s", channel, found, e.Lock)
		}
		found = e.Lock
	}
	return found, nil
}

// take takes a lock; closing lets go of what it took to reach it.
func (c *Call) take(ctx context.Context, u lock.URI, name string, p registry.Place, o lock.Options) (_ *lock.Held, closing func() error, err error) {
	closing = func() error { return nil }
	var reg lock.Register
	switch u.Kind {
	case lock.KindFile:
		h, err := lock.File(ctx, filepath.FromSlash(u.Path), name, o)
		return h, closing, err
	case lock.KindRegistry:
		if u.Registry != "" {
			ref, err := registry.ParseRef(u.Registry)
			if err != nil {
				return nil, nil, diag.Wrap(diag.Usage, err, "lock %s", u.Raw)
			}
			other, err := c.openPlace(ctx, ref, true)
			if err != nil {
				return nil, nil, err
			}
			p, closing = other, func() error { other.Close(); return nil }
		}
		reg = lock.Tag(p, name)
	case lock.KindS3:
		if reg, err = s3lock.Open(ctx, u, name); err != nil {
			return nil, nil, err
		}
	case lock.KindGit:
		g, err := gitlock.Open(ctx, u, name)
		if err != nil {
			return nil, nil, err
		}
		reg, closing = g, g.Close
	default:
		return nil, nil, diag.New(diag.Usage, "lock %s: of no known kind", u.Raw)
	}
	h, err := lock.Acquire(ctx, reg, o)
	if err != nil {
		return nil, nil, errors.Join(err, closing())
	}
	return h, closing, nil
}

// whoami is what a waiting publisher reads about this one.
func (c *Call) whoami() string {
	who := "somebody"
	if u, err := user.Current(); err == nil && u.Username != "" {
		who = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "some machine"
	}
	return fmt.Sprintf("%s at %s, process %d", who, host, os.Getpid())
}
