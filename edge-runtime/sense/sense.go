// Package sense reads the state of a device for its policy: memory, storage, battery, power, network, temperature. On Linux
// it reads files of /proc and /sys. A reading that cannot be made, there or elsewhere, is not known; nothing is guessed.
package sense

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
)

// maxFile bounds what is read of one file.
const maxFile = 1 << 20

// Source is where the readings come from.
type Source struct {
	// Root holds proc and sys: os.DirFS("/"), or where a container sees those of its host.
	Root fs.FS
	// Free gives the free bytes of the file system that holds the models; nil: not known.
	Free func() (uint64, error)
	// Metered are patterns (path.Match) of the interfaces over which bytes cost money. nil: nobody said, so it is not known.
	Metered []string
}

// Read fills in the readings of d.
func (s Source) Read(d *deviceinput.Device) {
	d.Memory = s.Memory()
	d.Storage = s.storage()
	d.Battery, d.Power = s.supplies()
	var iface string
	d.Network, iface = s.network()
	d.Metered = s.metered(d.Network, iface)
	d.Temperature = s.temperature()
}

// file reads a small file of root, without the spaces around its content.
func (s Source) file(name string) (string, error) {
	f, err := s.Root.Open(name)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && len(b) > maxFile {
		err = errors.New(name + " is too large")
	}
	return string(bytes.TrimSpace(b)), err
}

func (s Source) number(name string) (int64, error) {
	t, err := s.file(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(t, 10, 64)
}

// Memory reads the main memory.
func (s Source) Memory() deviceinput.Memory {
	text, err := s.file("proc/meminfo")
	if err != nil {
		return deviceinput.Memory{}
	}
	values := map[string]int64{}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			continue
		}
		if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil && n >= 0 && n < 1<<40 {
			values[name] = n << 10
		}
	}
	free, ok := values["MemAvailable"]
	total, ok2 := values["MemTotal"]
	if !ok || !ok2 {
		return deviceinput.Memory{}
	}
	return deviceinput.Memory{Known: true, FreeBytes: &free, TotalBytes: &total}
}

func (s Source) storage() deviceinput.Storage {
	if s.Free == nil {
		return deviceinput.Storage{}
	}
	free, err := s.Free()
	if err != nil || free > 1<<52 {
		return deviceinput.Storage{}
	}
	n := int64(free)
	return deviceinput.Storage{Known: true, FreeBytes: &n}
}

const supplyDir = "sys/class/power_supply"

// supplies reads the batteries of the device (not those of a mouse) and what else it may run on.
func (s Source) supplies() (deviceinput.Battery, deviceinput.Power) {
	names, err := fs.ReadDir(s.Root, supplyDir)
	if err != nil {
		return deviceinput.Battery{}, deviceinput.Power{}
	}
	percent, charging, discharging, present, online := int64(100), false, false, false, false
	for _, n := range names {
		dir := path.Join(supplyDir, n.Name())
		if scope, err := s.file(path.Join(dir, "scope")); err == nil && scope == "Device" {
			continue // it feeds a device beside this one
		}
		kind, err := s.file(path.Join(dir, "type"))
		if err != nil {
			return deviceinput.Battery{}, deviceinput.Power{}
		}
		if kind != "Battery" {
			on, err := s.number(path.Join(dir, "online"))
			online = online || err == nil && on > 0
			continue
		}
		if there, err := s.number(path.Join(dir, "present")); err == nil && there == 0 {
			continue
		}
		capacity, err := s.number(path.Join(dir, "capacity"))
		status, serr := s.file(path.Join(dir, "status"))
		if err != nil || serr != nil || capacity < 0 || capacity > 100 || status == "Unknown" {
			return deviceinput.Battery{}, deviceinput.Power{}
		}
		// Of several batteries the weakest counts.
		present, percent = true, min(percent, capacity)
		charging, discharging = charging || status == "Charging", discharging || status == "Discharging"
	}
	source := "mains"
	if present && discharging && !online {
		source = "battery"
	}
	b := deviceinput.Battery{Known: true, Present: &present}
	if present {
		b.Percent, b.Charging = &percent, &charging
	}
	return b, deviceinput.Power{Known: true, Source: &source}
}

// network finds the interface of the default route.
func (s Source) network() (deviceinput.Network, string) {
	v4, err := s.file("proc/net/route")
	if err != nil {
		return deviceinput.Network{}, ""
	}
	v6, err := s.file("proc/net/ipv6_route") // not there without IPv6
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return deviceinput.Network{}, ""
	}
	connected, first := false, ""
	for _, iface := range append(routes4(v4), routes6(v6)...) {
		state, err := s.file(path.Join("sys/class/net", iface, "operstate"))
		if err == nil && (state == "up" || state == "unknown") { // tunnels and mobile links say unknown
			connected, first = true, iface
			break
		}
	}
	return deviceinput.Network{Known: true, Connected: &connected}, first
}

// routeUp is the flag of a route that is usable.
const routeUp = 1

// routes4 lists the interfaces of default routes in /proc/net/route, the one that is taken first.
func routes4(text string) []string {
	return defaults(text, func(f []string) (string, string, string, bool) {
		return f[0], f[3], f[6], len(f) >= 8 && f[1] == "00000000" && f[7] == "00000000"
	}, 8, 10)
}

// routes6 does so for /proc/net/ipv6_route.
func routes6(text string) []string {
	return defaults(text, func(f []string) (string, string, string, bool) {
		return f[9], f[8], f[5], f[0] == strings.Repeat("0", 32) && f[1] == "00" && f[9] != "lo"
	}, 10, 16)
}

// defaults picks default routes out of a table and sorts them by metric.
func defaults(text string, row func(f []string) (iface, flags, metric string, isDefault bool), fields, base int) []string {
	var out []string
	var metrics []uint64
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < fields {
			continue
		}
		iface, flags, metric, ok := row(f)
		fl, err := strconv.ParseUint(flags, 16, 64)
		if !ok || err != nil || fl&routeUp == 0 || !fs.ValidPath(iface) || strings.Contains(iface, "/") {
			continue
		}
		m, err := strconv.ParseUint(metric, base, 64)
		if err != nil {
			continue
		}
		at := len(out)
		for at > 0 && metrics[at-1] > m {
			at--
		}
		out = append(out[:at], append([]string{iface}, out[at:]...)...)
		metrics = append(metrics[:at], append([]uint64{m}, metrics[at:]...)...)
	}
	return out
}

func (s Source) metered(n deviceinput.Network, iface string) deviceinput.Metered {
	if s.Metered == nil || iface == "" {
		return deviceinput.Metered{}
	}
	costs := false
	for _, p := range s.Metered {
		ok, err := path.Match(p, iface)
		if err != nil {
			return deviceinput.Metered{}
		}
		costs = costs || ok
	}
	return deviceinput.Metered{Known: true, Value: &costs}
}

// temperature is that of the hottest zone that can be read.
func (s Source) temperature() deviceinput.Temperature {
	zones, err := fs.Glob(s.Root, "sys/class/thermal/thermal_zone*/temp")
	if err != nil {
		return deviceinput.Temperature{}
	}
	found, hottest := false, int64(0)
	for _, z := range zones {
		milli, err := s.number(z)
		if err != nil || milli < -273000 || milli > 10000000 {
			continue // zones that are off answer with an error
		}
		c := milli / 1000
		if milli > c*1000 {
			c++
		}
		if !found || c > hottest {
			found, hottest = true, c
		}
	}
	if !found {
		return deviceinput.Temperature{}
	}
	return deviceinput.Temperature{Known: true, Celsius: &hottest}
}
