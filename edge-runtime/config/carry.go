package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ratelimit"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/registry"
)

// Carry says when and how fast a device takes updates. A channel overrides what it sets itself.
type Carry struct {
	Windows   []string `json:"windows,omitzero"`   // "Mon-Fri 02:00-05:00": when an update may begin; none: always
	Timezone  string   `json:"timezone,omitzero"`  // of the windows: "Local" (default), "UTC" or a name such as Europe/Berlin
	Download  string   `json:"download,omitzero"`  // "window" (default): files come in the windows too; "always"
	NoClock   string   `json:"no_clock,omitzero"`  // while the clock is known to be wrong: "wait" (default) or "update"
	Bandwidth rate     `json:"bandwidth,omitzero"` // of all downloads together; of a channel: of its own, besides
	MinRate   rate     `json:"min_rate,omitzero"`  // below which a carrier is given up for the next one
}

// Carrier is one place that a channel comes from: a registry, a folder or a mirror.
type Carrier struct {
	Registry   string `json:"registry,omitempty"`
	Repo       string `json:"repo,omitempty"`
	PlainHTTP  bool   `json:"plain_http,omitempty"`
	CAFile     string `json:"ca_file,omitempty"` // also of a mirror
	ClientCert string `json:"client_cert,omitempty"`
	ClientKey  string `json:"client_key,omitempty"`
	Folder     string `json:"folder,omitempty"` // with an OCI layout or archives, or an archive; it may be absent
	Mirror     string `json:"mirror,omitempty"` // address of an OCI layout behind a web server
	Name       string `json:"name,omitempty"`   // of the model in a folder or mirror of several; default: the channel's repo, then its model
}

// rate is a number of bytes in a second, written as "512kB/s", "512kB" or a number.
type rate byteSize

// UnmarshalJSON implements json.Unmarshaler.
func (r *rate) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		s, _ = strings.CutSuffix(s, "/s")
		raw, _ = json.Marshal(s) // a string
	}
	return (*byteSize)(r).UnmarshalJSON(raw)
}

// MarshalJSON implements json.Marshaler.
func (r rate) MarshalJSON() ([]byte, error) { return byteSize(r).MarshalJSON() }

// Over is c with what is set in x in its place. Bandwidth is not taken over: it is shared.
func (c Carry) Over(x Carry) Carry {
	if x.Windows != nil {
		c.Windows = x.Windows
	}
	for _, f := range []struct{ to, from *string }{{&c.Timezone, &x.Timezone}, {&c.Download, &x.Download}, {&c.NoClock, &x.NoClock}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if x.MinRate != 0 {
		c.MinRate = x.MinRate
	}
	c.Bandwidth = x.Bandwidth
	return c
}

func (c Carry) check() error {
	if _, err := c.ParseWindows(); err != nil && !ZoneLost(err) {
		return err
	}
	for _, f := range []struct{ key, v, other string }{{"download", c.Download, "always"}, {"no_clock", c.NoClock, "update"}} {
		usual := map[string]string{"download": "window", "no_clock": "wait"}[f.key]
		if f.v != "" && f.v != f.other && f.v != usual {
			return diag.Errorf("%s is %q: it is %q or %q", f.key, f.v, usual, f.other)
		}
	}
	if c.Bandwidth > 0 && c.Bandwidth < 1000 {
		return diag.Errorf("bandwidth is %d bytes in a second: no update would ever arrive below 1kB/s", c.Bandwidth)
	}
	return nil
}

// checkCarriers checks where a channel comes from.
func (c *Channel) checkCarriers() error {
	if len(c.Carriers) == 0 && c.Registry == "" {
		return errors.New("registry is missing, and there are no carriers")
	}
	if c.Registry != "" && len(c.Carriers) > 0 {
		return errors.New("registry and carriers are both given: the registry is one of the carriers then")
	}
	for i, x := range c.Places() {
		at := fmt.Sprintf("carriers[%d]", i)
		if len(c.Carriers) == 0 {
			at = "registry"
		}
		n := 0
		for _, v := range []string{x.Registry, x.Folder, x.Mirror} {
			if v != "" {
				n++
			}
		}
		switch {
		case n != 1:
			return diag.Errorf("%s: it has one of registry, folder and mirror", at)
		case x.Registry != "" && !registry.ValidRepo(x.Repo):
			if len(c.Carriers) == 0 {
				return diag.Errorf("repo: %q is not a repository name", x.Repo)
			}
			return diag.Errorf("%s.repo: %q is not a repository name", at, x.Repo)
		case x.Registry == "" && (x.Repo != "" || x.PlainHTTP), x.Folder != "" && (x.CAFile != "" || x.ClientCert != ""), x.Registry != "" && x.Name != "":
			return diag.Errorf("%s: it has keys that belong to another kind of carrier", at)
		case x.Mirror != "":
			if _, err := carrier.NewMirror(x.Mirror, carrier.MirrorOptions{}); err != nil {
				return diag.Errorf("%s.mirror: %w", at, err)
			}
		}
	}
	return nil
}

// Places are the carriers of a channel, the short form with one registry included.
func (c *Channel) Places() []Carrier {
	if len(c.Carriers) > 0 {
		return c.Carriers
	}
	return []Carrier{{Registry: c.Registry, Repo: c.Repo, PlainHTTP: c.PlainHTTP, CAFile: c.CAFile, ClientCert: c.ClientCert, ClientKey: c.ClientKey}}
}

// relative makes the paths of the carriers absolute.
func (c *Channel) relative(dir string) {
	for i := range c.Carriers {
		x := &c.Carriers[i]
		for _, p := range []*string{&x.CAFile, &x.ClientCert, &x.ClientKey, &x.Folder} {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p)
			}
		}
	}
}

// Few repetitions: there is the next carrier, and the next poll, and many devices that would all repeat.
func edgeRetry() registry.RetryPolicy {
	return registry.RetryPolicy{Attempts: 2, Wait: time.Second, MaxWait: 5 * time.Second}
}

// remoteOf is a repository in a registry. Its certificates are read here.
func (c *Channel) remoteOf(x Carrier, limit *ratelimit.Limiter) (*registry.Remote, error) {
	return registry.NewRemote(x.Registry, x.Repo, c.access(registry.RemoteOptions{
		PlainHTTP: x.PlainHTTP, UserAgent: "waybill-edge/" + version.Number, Retry: edgeRetry(), Idle: c.idle(), Connections: 1, Limit: limit,
		DownHint: "curl -sSf http://" + x.Registry + "/v2/", // a device has no registry to start
		TLS:      registry.TLSOptions{CAFile: x.CAFile, CertFile: x.ClientCert, KeyFile: x.ClientKey},
	}))
}

// idle is how long a connection is kept: until the next poll, so that this one needs no handshake, unless that is far away.
func (c *Channel) idle() time.Duration {
	if d := time.Duration(c.Interval) * 3 / 2; d <= 15*time.Minute {
		return max(d, time.Minute)
	}
	return time.Minute
}

// Remote is the registry that reports go to: the first of the carriers that is one; nil when none is.
func (c *Channel) Remote() (*registry.Remote, error) {
	for _, x := range c.Places() {
		if x.Registry != "" {
			return c.remoteOf(x, nil)
		}
	}
	return nil, nil
}

// Open makes the carrier of a channel. limit is shared by all channels.
func (c *Channel) Open(dev Carry, limit *ratelimit.Limiter) (*carrier.Set, error) {
	own := ratelimit.New(int64(c.Bandwidth))
	repo := c.Repo
	for _, x := range c.Carriers {
		if repo == "" {
			repo = x.Repo
		}
	}
	o := carrier.Options{MinRate: int64(dev.Over(c.Carry).MinRate)}
	var places []carrier.Named
	for _, x := range c.Places() {
		names := []string{x.Name}
		if x.Name == "" {
			names = []string{path.Base(repo), c.Model}
		}
		p := carrier.Named{Limits: []*ratelimit.Limiter{limit, own}}
		switch {
		case x.Registry != "":
			r, err := c.remoteOf(x, nil)
			if err != nil {
				return nil, err
			}
			p.Name, p.Place = "registry "+x.Registry+"/"+x.Repo, carrier.NewRegistry(r)
		case x.Folder != "":
			p.Name, p.Place, p.Limits = "folder "+x.Folder, carrier.NewFolder(x.Folder, names...), nil
		default:
			u, err := url.Parse(x.Mirror)
			if err != nil {
				return nil, err
			}
			t, err := registry.TransportFor(u.Host, registry.TLSOptions{CAFile: x.CAFile, CertFile: x.ClientCert, KeyFile: x.ClientKey}, c.idle())
			if err != nil {
				return nil, err
			}
			m, err := carrier.NewMirror(x.Mirror, carrier.MirrorOptions{Transport: t, UserAgent: "waybill-edge/" + version.Number, Names: names})
			if err != nil {
				return nil, err
			}
			p.Name, p.Place = "mirror "+x.Mirror, m
		}
		places = append(places, p)
	}
	return carrier.NewSet(o, places...), nil
}
