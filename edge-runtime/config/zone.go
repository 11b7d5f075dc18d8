package config

import (
	"errors"
	"os"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/schedule"
	"github.com/waybill-ml/waybill/internal/diag"
)

// errZone says that this machine cannot tell the time of a place: its time zone data were lost, or there never was such a place.
// Nobody on the device can tell which, so what is right depends on who asks: enrolling refuses the name and doctor fails, since a
// person is there to correct it; an agent that has something to serve starts, and its windows are closed.
var errZone = errors.New("this machine does not know it (a package tzdata has them; \"UTC\" needs none)")

// localtime is where the zone of the device itself is kept.
const localtime = "/etc/localtime"

// zone is where the clock of the windows hangs.
func (c Carry) zone() (*time.Location, error) {
	if c.Timezone == "" || c.Timezone == "Local" {
		if len(c.Windows) == 0 {
			return time.Local, nil // nothing hangs on it
		}
		return time.Local, lostLocal(localtime, os.Getenv("TZ"))
	}
	// The rules of time.LoadLocation: such names are no places on any machine.
	if strings.Contains(c.Timezone, "..") || strings.HasPrefix(c.Timezone, "/") || strings.Contains(c.Timezone, `\`) {
		return nil, diag.Errorf("timezone %q is not a name such as Europe/Berlin", c.Timezone)
	}
	z, err := time.LoadLocation(c.Timezone)
	if err != nil {
		return nil, diag.Errorf("timezone %q: %w: %w", c.Timezone, errZone, err)
	}
	return z, nil
}

// lostLocal tells that the device names a zone whose data are gone: it would pass for UTC.
func lostLocal(link, tz string) error {
	if tz != "" {
		return nil
	}
	to, err := os.Readlink(link)
	if err != nil {
		return nil // a file of its own, or none: UTC
	}
	if _, err := os.Stat(link); errors.Is(err, os.ErrNotExist) {
		return diag.Errorf("timezone of this device, %s: %w", to, errZone)
	}
	return nil
}

// ParseWindows reads the windows. Beside an error that is only about the zone the windows are there, and never open: see ZoneLost.
func (c Carry) ParseWindows() (schedule.Windows, error) {
	zone, lost := c.zone()
	if lost != nil && !errors.Is(lost, errZone) {
		return schedule.Windows{}, lost
	}
	w, err := schedule.ParseWindows(c.Windows, zone)
	if err != nil {
		return w, diag.Errorf("windows: %w", err)
	}
	if lost != nil {
		return w.Never(lost.Error()), lost
	}
	return w, nil
}

// ZoneLost tells that windows could be read and only their place is unknown here.
func ZoneLost(err error) bool { return errors.Is(err, errZone) }

// CheckZones is what Load leaves out of Check: that this machine knows the zones of all windows.
func (c *Config) CheckZones() error {
	if _, err := c.ParseWindows(); err != nil {
		return err
	}
	for _, ch := range c.Channels {
		if _, err := c.Over(ch.Carry).ParseWindows(); err != nil {
			return diag.Errorf("channel %s: %w", ch.Name, err)
		}
	}
	return nil
}
