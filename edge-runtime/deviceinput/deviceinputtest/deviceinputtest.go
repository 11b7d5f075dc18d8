// Package deviceinputtest makes input documents of device-local policies for tests.
package deviceinputtest

import (
	"math/rand/v2"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Good is a device where everything is known and fine.
func Good() *deviceinput.Document {
	return &deviceinput.Document{
		Schema: deviceinput.Schema, Action: deviceinput.Activate,
		Time: deviceinput.Time{Unix: 1790000000, Local: deviceinput.LocalAt(time.Unix(1790000000, 0).UTC())},
		Device: deviceinput.Device{
			Class: "edge-s", Labels: map[string]string{"site": "a"},
			Memory:      deviceinput.Memory{Known: true, FreeBytes: new(int64(512 << 20)), TotalBytes: new(int64(1 << 30))},
			Storage:     deviceinput.Storage{Known: true, FreeBytes: new(int64(4 << 30))},
			Battery:     deviceinput.Battery{Known: true, Present: new(true), Percent: new(int64(80)), Charging: new(false)},
			Power:       deviceinput.Power{Known: true, Source: new("battery")},
			Network:     deviceinput.Network{Known: true, Connected: new(true)},
			Metered:     deviceinput.Metered{Known: true, Value: new(false)},
			Temperature: deviceinput.Temperature{Known: true, Celsius: new(int64(41))},
		},
		Model: deviceinput.Model{
			Name: "churn", Version: "2.0", Digest: artifact.DigestOf([]byte("new")), Epoch: 1, Bytes: 5 << 20,
			Memory: deviceinput.Need{Known: true, Bytes: new(int64(64 << 20))},
		},
		Current: deviceinput.Current{Known: true, Name: new("churn"), Version: new("1.0"), Digest: new(artifact.DigestOf([]byte("old"))), Epoch: new(int64(1))},
	}
}

// Random is a valid document; a quarter of its readings have failed.
func Random(r *rand.Rand) *deviceinput.Document {
	d := Good()
	known := func() bool { return r.IntN(4) > 0 }
	small := func(n int64) *int64 { return new(r.Int64N(n)) }
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	d.Action = deviceinput.Action(pick("download", "activate"))
	d.Time = deviceinput.Time{Unix: r.Int64N(4e9)}
	if known() {
		d.Time.Local = deviceinput.LocalAt(time.Unix(r.Int64N(4e9), 0).UTC())
	}
	x := &d.Device
	x.Class, x.Labels = pick("edge-xs", "edge-s", "edge-l", "edge-xl"), map[string]string{}
	for _, k := range []string{"site", "ring", "frozen", "limit"} {
		if r.IntN(2) == 0 {
			x.Labels[k] = pick("a", "b", "frozen", "stable", "30", "-1.5e3", "naïve ☃")
		}
	}
	x.Memory, x.Storage, x.Battery, x.Power = deviceinput.Memory{}, deviceinput.Storage{}, deviceinput.Battery{}, deviceinput.Power{}
	x.Network, x.Metered, x.Temperature = deviceinput.Network{}, deviceinput.Metered{}, deviceinput.Temperature{}
	d.Model.Memory, d.Current = deviceinput.Need{}, deviceinput.Current{}
	if known() {
		x.Memory = deviceinput.Memory{Known: true, FreeBytes: small(1 << (1 + r.IntN(40))), TotalBytes: small(1 << 40)}
	}
	if known() {
		x.Storage = deviceinput.Storage{Known: true, FreeBytes: small(1 << (1 + r.IntN(52)))}
	}
	if known() {
		x.Battery = deviceinput.Battery{Known: true, Present: new(r.IntN(3) > 0)}
		if *x.Battery.Present {
			x.Battery.Percent, x.Battery.Charging = small(101), new(r.IntN(2) == 0)
		}
	}
	if known() {
		x.Power = deviceinput.Power{Known: true, Source: new(pick("mains", "battery"))}
	}
	if known() {
		x.Network = deviceinput.Network{Known: true, Connected: new(r.IntN(2) == 0)}
	}
	if known() {
		x.Metered = deviceinput.Metered{Known: true, Value: new(r.IntN(2) == 0)}
	}
	if known() {
		x.Temperature = deviceinput.Temperature{Known: true, Celsius: new(r.Int64N(120) - 20)}
	}
	d.Model.Name, d.Model.Version, d.Model.Epoch = pick("churn", "défaut"), pick("", "1.0", "2.0-rc.1"), r.Int64N(5)
	d.Model.Bytes, d.Model.Download = r.Int64N(1<<32), r.Int64N(1<<32)
	if known() {
		d.Model.Memory = deviceinput.Need{Known: true, Bytes: small(1 << (1 + r.IntN(32)))}
	}
	if known() {
		d.Current = deviceinput.Current{Known: true, Name: new("churn"), Version: new(pick("1.0", "2.0-rc.1")), Digest: new(artifact.DigestOf([]byte("old"))), Epoch: small(5)}
	}
	return d
}
