package config

import (
	"strings"
	"testing"
	"time"
)

func TestServeConfigCheck(t *testing.T) {
	minus := -1
	for want, c := range map[string]Serve{
		"max_in_flight is negative":   {MaxInFlight: -1},
		"max_connections is negative": {MaxConns: -1},
		"max_queue is negative":       {MaxQueue: &minus},
		"more than 1 GiB":             {MaxBody: 2 << 30},
		"sessions.max is negative":    {Sessions: sessionConfig{Max: -1}},
		"more than 25s":               {Sessions: sessionConfig{Grace: Duration(time.Minute)}},
		"grpc_listen":                 {GRPCListen: "nowhere"},
	} {
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
	if err := (&Serve{}).check(); err != nil {
		t.Error(err)
	}
}
