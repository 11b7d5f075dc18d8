package sense

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/deviceinput/deviceinputtest"
)

func root(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for n, c := range files {
		m[n] = &fstest.MapFile{Data: []byte(c)}
	}
	return m
}

const (
	routeHead = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	viaEth    = routeHead + "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
	viaBoth   = routeHead + "wwan0\t00000000\t0101A8C0\t0003\t0\t0\t700\t00000000\t0\t0\t0\neth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
	meminfo   = "MemTotal:        1015808 kB\nMemFree:          100 kB\nMemAvailable:     524288 kB\nHugePages_Total:       0\n"
)

func TestRead(t *testing.T) {
	bat := "sys/class/power_supply/BAT0/"
	for name, c := range map[string]struct {
		files   map[string]string
		metered []string
		want    string
	}{
		"nothing": {nil, []string{}, `{"memory":{"known":false},"battery":{"known":false},"power":{"known":false},"network":{"known":false},"metered":{"known":false},"temperature":{"known":false}}`},
		"a board without a battery": {map[string]string{"proc/meminfo": meminfo, "proc/net/route": viaEth, "sys/class/net/eth0/operstate": "up\n", "sys/class/power_supply/usb/type": "USB\n",
			"sys/class/thermal/thermal_zone0/temp": "41001\n", "sys/class/thermal/thermal_zone1/temp": "-5000\n"}, nil,
			`{"memory":{"known":true,"freeBytes":536870912,"totalBytes":1040187392},"battery":{"known":true,"present":false},"power":{"known":true,"source":"mains"},"network":{"known":true,"connected":true},"metered":{"known":false},"temperature":{"known":true,"celsius":42}}`},
		"on battery over a metered link": {map[string]string{bat + "type": "Battery\n", bat + "present": "1\n", bat + "capacity": "12\n", bat + "status": "Discharging\n",
			"proc/net/route": routeHead + "wwan0\t00000000\t0101A8C0\t0003\t0\t0\t700\t00000000\t0\t0\t0\n", "sys/class/net/wwan0/operstate": "unknown"}, []string{"wwan*"},
			`{"memory":{"known":false},"battery":{"known":true,"present":true,"percent":12,"charging":false},"power":{"known":true,"source":"battery"},"network":{"known":true,"connected":true},"metered":{"known":true,"value":true},"temperature":{"known":false}}`},
		"the link with the lower metric is taken": {map[string]string{"proc/net/route": viaBoth, "sys/class/net/eth0/operstate": "up", "sys/class/net/wwan0/operstate": "up"}, []string{"wwan*"},
			`{"memory":{"known":false},"battery":{"known":false},"power":{"known":false},"network":{"known":true,"connected":true},"metered":{"known":true,"value":false},"temperature":{"known":false}}`},
		"a cable that is out": {map[string]string{"proc/net/route": viaEth, "sys/class/net/eth0/operstate": "down"}, []string{},
			`{"memory":{"known":false},"battery":{"known":false},"power":{"known":false},"network":{"known":true,"connected":false},"metered":{"known":false},"temperature":{"known":false}}`},
		"IPv6 only": {map[string]string{"proc/net/route": routeHead, "proc/net/ipv6_route": "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n",
			"sys/class/net/eth0/operstate": "up"}, nil,
			`{"memory":{"known":false},"battery":{"known":false},"power":{"known":false},"network":{"known":true,"connected":true},"metered":{"known":false},"temperature":{"known":false}}`},
		"plugged in, two batteries, a mouse": {map[string]string{bat + "type": "Battery", bat + "capacity": "90", bat + "status": "Full", "sys/class/power_supply/BAT1/type": "Battery", "sys/class/power_supply/BAT1/capacity": "31", "sys/class/power_supply/BAT1/status": "Charging",
			"sys/class/power_supply/AC/type": "Mains", "sys/class/power_supply/AC/online": "1", "sys/class/power_supply/hidpp/type": "Battery", "sys/class/power_supply/hidpp/scope": "Device", "sys/class/power_supply/hidpp/capacity": "3"}, nil,
			`{"memory":{"known":false},"battery":{"known":true,"present":true,"percent":31,"charging":true},"power":{"known":true,"source":"mains"},"network":{"known":false},"metered":{"known":false},"temperature":{"known":false}}`},
		"a battery that says nothing": {map[string]string{bat + "type": "Battery", bat + "status": "Discharging"}, nil,
			`{"memory":{"known":false},"battery":{"known":false},"power":{"known":false},"network":{"known":false},"metered":{"known":false},"temperature":{"known":false}}`},
		"a battery that lies": {map[string]string{bat + "type": "Battery", bat + "capacity": "400", bat + "status": "Discharging"}, nil,
			`{"memory":{"known":false},"battery":{"known":false},"power":{"known":false},"network":{"known":false},"metered":{"known":false},"temperature":{"known":false}}`},
		"half of meminfo": {map[string]string{"proc/meminfo": "MemTotal: 5 kB\nMemAvailable: x kB\n"}, nil,
			`{"memory":{"known":false},"battery":{"known":false},"power":{"known":false},"network":{"known":false},"metered":{"known":false},"temperature":{"known":false}}`},
	} {
		t.Run(name, func(t *testing.T) {
			d := deviceinputtest.Good()
			Source{Root: root(c.files), Metered: c.metered}.Read(&d.Device)
			x := d.Device
			got, err := json.Marshal(struct {
				M deviceinput.Memory      `json:"memory"`
				B deviceinput.Battery     `json:"battery"`
				P deviceinput.Power       `json:"power"`
				N deviceinput.Network     `json:"network"`
				C deviceinput.Metered     `json:"metered"`
				T deviceinput.Temperature `json:"temperature"`
			}{x.Memory, x.Battery, x.Power, x.Network, x.Metered, x.Temperature})
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if d.Device.Storage.Known {
				t.Error("storage is known")
			}
			if _, err := d.Encode(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStorage(t *testing.T) {
	d := deviceinputtest.Good()
	Source{Root: root(nil), Free: func() (uint64, error) { return 77, nil }}.Read(&d.Device)
	if !d.Device.Storage.Known || *d.Device.Storage.FreeBytes != 77 {
		t.Errorf("%+v", d.Device.Storage)
	}
	Source{Root: root(nil), Free: func() (uint64, error) { return 0, errors.New("no") }}.Read(&d.Device)
	if d.Device.Storage.Known {
		t.Error("known all the same")
	}
}

// On this machine whatever can be read is a valid document.
func TestHere(t *testing.T) {
	d := deviceinputtest.Good()
	Source{Root: os.DirFS("/")}.Read(&d.Device)
	if _, err := d.Encode(); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" && !d.Device.Memory.Known {
		if _, err := fs.Stat(os.DirFS("/"), "proc/meminfo"); err == nil {
			t.Error("/proc/meminfo is there and says nothing")
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(meminfo, viaBoth, "Battery", "12", "Discharging", "41001")
	f.Add("", "a b c d e f g h", "Mains", "1", "Unknown", "-")
	f.Fuzz(func(t *testing.T, mem, route, kind, capacity, status, temp string) {
		d := deviceinputtest.Good()
		Source{Metered: []string{"*"}, Root: root(map[string]string{"proc/meminfo": mem, "proc/net/route": route, "proc/net/ipv6_route": route, "sys/class/net/eth0/operstate": "up",
			"sys/class/power_supply/B/type": kind, "sys/class/power_supply/B/capacity": capacity, "sys/class/power_supply/B/online": capacity, "sys/class/power_supply/B/status": status,
			"sys/class/thermal/thermal_zone0/temp": temp})}.Read(&d.Device)
		if _, err := d.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}
