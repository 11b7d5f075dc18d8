package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/oip"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// The program serves REST and gRPC on each of its two addresses, is alive and not ready before it has a model, and answers both
// protocols with the same bytes.
func TestServesBothProtocols(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1 := p.Pack("v1")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond)})
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	var cfg map[string]any
	if err := json.Unmarshal(raw, &cfg); err != nil {
		t.Fatal(err)
	}
	cfg["serve"] = map[string]any{"grpc_listen": "127.0.0.1:0", "max_body": "64kB", "max_queue": 0, "sessions": map[string]any{"max": 2, "ttl": "5s"}}
	if raw, err = json.Marshal(cfg); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd, d.log = exec.Command(exe, "run", "--config", d.cfg), &bytes.Buffer{}
	d.cmd.Env, d.cmd.Stderr = append(os.Environ(), "WAYBILL_EDGE_TEST_MAIN=1"), d.log
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.exit = make(chan error, 1)
	var addrs []string
	lines := bufio.NewScanner(stdout)
	for len(addrs) < 2 && lines.Scan() {
		words := strings.Fields(lines.Text())
		addrs = append(addrs, "http://"+strings.TrimPrefix(words[len(words)-1], "http://"))
	}
	go func() { d.exit <- d.cmd.Wait() }()
	t.Cleanup(func() { d.kill() })
	if len(addrs) != 2 || addrs[0] == addrs[1] {
		t.Fatalf("addresses %v\n%s", addrs, d.log)
	}
	d.addr = addrs[0]
	status := func(url string) int {
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, a := range addrs {
		if live, ready := status(a+"/v2/health/live"), status(a+"/v2/health/ready"); live != 200 || ready != 503 {
			t.Errorf("%s without a model: live %d, ready %d", a, live, ready)
		}
	}
	p.Publish(p.Change(v1))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("poll: %v\n%s\n%s", err, out, d.log)
	}
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	var answers [][]byte
	for _, a := range addrs {
		if ready := status(a + "/v2/health/ready"); ready != 200 {
			t.Errorf("%s: ready %d", a, ready)
		}
		const service = "/inference.GRPCInferenceService/"
		meta, err := connect.NewClient[oip.ModelMetadataRequest, oip.ModelMetadataResponse](&http.Client{Transport: tr}, a+service+"ModelMetadata", connect.WithGRPC()).
			CallUnary(t.Context(), connect.NewRequest(&oip.ModelMetadataRequest{Name: edgetest.Model}))
		if err != nil {
			t.Fatal(err)
		}
		infer := connect.NewClient[oip.ModelInferRequest, oip.ModelInferResponse](&http.Client{Transport: tr}, a+service+"ModelInfer", connect.WithGRPC())
		x := edgetest.Row(1)
		req := &oip.ModelInferRequest{ModelName: edgetest.Model, RawInputContents: [][]byte{x.Data},
			Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: meta.Msg.GetInputs()[0].GetName(), Datatype: "FP32", Shape: x.Shape}}}
		res, err := infer.CallUnary(t.Context(), connect.NewRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Msg.GetParameters()["digest"].GetStringParam(); got != string(v1.Digest) {
			t.Errorf("answered by %s", got)
		}
		answers = append(answers, res.Msg.GetRawOutputContents()[0])
		req.RawInputContents[0] = make([]byte, 100_000)
		if _, err := infer.CallUnary(t.Context(), connect.NewRequest(req)); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("more than max_body: %v", err)
		}
	}
	if !bytes.Equal(answers[0], answers[1]) {
		t.Errorf("answers %x", answers)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("REST: %s, %v", got, err)
	}
	if err := d.stop(); err != nil {
		t.Errorf("stop: %v\n%s", err, d.log)
	}
}
