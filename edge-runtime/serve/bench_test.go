package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

// sink is a ResponseWriter that counts.
type sink struct {
	h      http.Header
	status int
	n      int
}

func (s *sink) Header() http.Header              { return s.h }
func (s *sink) WriteHeader(status int)           { s.status = status }
func (s *sink) Write(b []byte) (int, error)      { s.n += len(b); return len(b), nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Flush()                           {}

// BenchmarkHandler is one inference of a small classifier through the server's handler, without the network: the model itself
// (BenchmarkEngine) is the floor.
func BenchmarkHandler(b *testing.B) {
	e := newEngine(b)
	nets := [2]*network{newNetwork(b, 1), newNetwork(b, 2)}
	q := questions(b, e, nets, 1)[0]
	s := New(Config{})
	m := nets[0].load(b, e, 0)
	s.Swap("m", Model{dig, m})
	defer func() { _ = s.Close(context.Background()) }()
	msg, err := proto.Marshal(q.message)
	if err != nil {
		b.Fatal(err)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
	for _, c := range []struct {
		name, path string
		body       []byte
		header     map[string]string
		major      int
	}{
		{"rest-json", "/v2/models/m/infer", q.json, map[string]string{"Content-Type": "application/json"}, 1},
		{"rest-binary", "/v2/models/m/infer", q.binary, map[string]string{headerLength: q.header}, 1},
		{"grpc", "/" + serviceName + "/ModelInfer", frame, map[string]string{"Content-Type": "application/grpc", "Te": "trailers"}, 2},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := s.Handler()
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequest("POST", "http://a"+c.path, io.NopCloser(bytes.NewReader(c.body)))
				if err != nil {
					b.Fatal(err)
				}
				r.ContentLength, r.ProtoMajor = int64(len(c.body)), c.major
				for k, v := range c.header {
					r.Header.Set(k, v)
				}
				w := &sink{h: http.Header{}, status: 200}
				h.ServeHTTP(w, r)
				if w.status != 200 || w.n == 0 || w.h.Get("Grpc-Status") != "" && w.h.Get("Grpc-Status") != "0" {
					b.Fatalf("%d %v", w.status, w.h)
				}
			}
		})
	}
	b.Run("engine", func(b *testing.B) {
		b.ReportAllocs()
		wr, err := parseRequest(q.json)
		if err != nil {
			b.Fatal(err)
		}
		ports := newCodecPorts(m.Interface())
		req, err := wr.decode(nil, &ports)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := m.Run(b.Context(), req.inputs); err != nil {
				b.Fatal(err)
			}
		}
	})
}
