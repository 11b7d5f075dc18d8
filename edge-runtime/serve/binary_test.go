package serve

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// post sends JSON and what follows it; header is the value of Inference-Header-Content-Length, "" for none.
func post(t *testing.T, url, header string, body []byte, hdr ...string) (status int, h http.Header, doc map[string]any, blob []byte) {
	t.Helper()
	req, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if header != "" {
		req.Header.Set(headerLength, header)
	}
	for i := 0; i+1 < len(hdr); i += 2 {
		req.Header.Add(hdr[i], hdr[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n := res.Header.Get(headerLength); n != "" {
		k, err := strconv.Atoi(n)
		if err != nil || k > len(b) {
			t.Fatalf("%s: %s of %d bytes", headerLength, n, len(b))
		}
		b, blob = b[:k], b[k:]
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return res.StatusCode, res.Header, doc, blob
}

// Every datatype goes through the binary extension bit for bit, in whichever way the output is asked for.
func TestBinaryDatatypes(t *testing.T) {
	s, h := start(t, Config{}, nil)
	for _, c := range allTypes {
		s.Swap(c.dtype, Model{dig, echo(port("x", c.dtype, -1, 2))})
		d, _ := abi.ParseDType(c.dtype)
		raw := elements(d)
		for _, ask := range []string{`"parameters":{"binary_data_output":true}`, `"outputs":[{"name":"x","parameters":{"binary_data":true}}]`,
			`"parameters":{"binary_data_output":false},"outputs":[{"name":"x","parameters":{"binary_data":true}}]`} {
			doc := fmt.Sprintf(`{"id":"q","inputs":[{"name":"x","datatype":%q,"shape":[1,2],"parameters":{"binary_data_size":%d}}],%s}`, c.oip, len(raw), ask)
			status, hdr, v, blob := post(t, h.URL+"/v2/models/"+c.dtype+"/infer", fmt.Sprint(len(doc)), append([]byte(doc), raw...))
			if status != 200 || !bytes.Equal(blob, raw) || hdr.Get("Content-Type") != "application/octet-stream" || hdr.Get(DigestHeader) != string(dig) {
				t.Errorf("%s %s: %d %v %x, want %x", c.oip, ask, status, v, blob, raw)
				continue
			}
			out := v["outputs"].([]any)[0].(map[string]any)
			if out["parameters"].(map[string]any)["binary_data_size"] != float64(len(raw)) || out["data"] != nil || out["datatype"] != c.oip {
				t.Errorf("%s: output %v", c.oip, out)
			}
		}
	}
}

// Binary and JSON tensors in one request, each output in the form that was asked for, in the request's order.
func TestBinaryMixed(t *testing.T) {
	r := echo(port("a", "i32", -1), port("b", "string", -1), port("c", "f32", -1))
	_, h := start(t, Config{}, r)
	c := engine.Of([]float32{1.5}).Data
	b := appendBytes(nil, "xyz")
	doc := fmt.Sprintf(`{"inputs":[{"name":"c","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}},`+
		`{"name":"a","datatype":"INT32","shape":[2],"data":[7,8]},{"name":"b","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}],`+
		`"outputs":[{"name":"b","parameters":{"binary_data":true}},{"name":"a"},{"name":"c","parameters":{"binary_data":true}}]}`, len(b))
	status, _, v, blob := post(t, h.URL+"/v2/models/m/infer", fmt.Sprint(len(doc)), bytes.Join([][]byte{[]byte(doc), c, b}, nil))
	if status != 200 || !bytes.Equal(blob, append(append([]byte(nil), b...), c...)) {
		t.Fatalf("%d %v %q", status, v, blob)
	}
	if a := v["outputs"].([]any)[1].(map[string]any); fmt.Sprint(a["data"]) != "[7 8]" {
		t.Errorf("output a: %v", a)
	}
}

// A body that is one raw tensor.
func TestBinaryRaw(t *testing.T) {
	s, h := start(t, Config{}, nil)
	s.Swap("f", Model{dig, echo(port("x", "f32", -1, 2))})
	s.Swap("s", Model{dig, echo(port("x", "string", -1))})
	s.Swap("two", Model{dig, echo(port("x", "f32", -1), port("y", "f32", -1))})
	s.Swap("open", Model{dig, echo(port("x", "f32", -1, -1))})
	s.Swap("zero", Model{dig, echo(port("x", "f32", -1, 0))})
	s.Swap("big", Model{dig, echo(port("x", "f32", -1, 1<<40, 1<<40))})
	for _, c := range []struct {
		model  string
		body   []byte
		status int
		want   string
		blob   []byte
	}{
		{"f", engine.Of([]float32{1, 2, 3, 4}).Data, 200, `"shape":[2,2]`, engine.Of([]float32{1, 2, 3, 4}).Data},
		{"f", []byte{1, 2, 3}, 400, "no whole number of elements", nil},
		{"s", []byte("\x00any\xff"), 200, `"shape":[1]`, appendBytes(nil, "\x00any\xff")},
		{"two", []byte{1, 2, 3, 4}, 400, "models with one input", nil},
		{"open", []byte{1, 2, 3, 4}, 400, "more than one open dim", nil},
		{"zero", []byte{}, 400, "no whole number", nil},
		{"big", []byte{1}, 400, "too many elements", nil},
	} {
		status, _, v, blob := post(t, h.URL+"/v2/models/"+c.model+"/infer", "0", c.body)
		b, _ := json.Marshal(v)
		if status != c.status || !strings.Contains(string(b), c.want) || !bytes.Equal(blob, c.blob) {
			t.Errorf("%s %q: %d %s %q, want %d with %q", c.model, c.body, status, b, blob, c.status, c.want)
		}
	}
}

// Lengths that lie.
func TestBinaryHostile(t *testing.T) {
	_, h := start(t, Config{}, echo(port("x", "i32", -1), port("y", "string", -1)))
	in := func(size string, more string) string {
		return `{"inputs":[{"name":"x","datatype":"INT32","shape":[1],"parameters":{"binary_data_size":` + size + `}` + more + `},{"name":"y","datatype":"BYTES","shape":[1],"data":["a"]}]}`
	}
	bytesIn := func(shape, size string) string {
		return `{"inputs":[{"name":"x","datatype":"INT32","shape":[0],"data":[]},{"name":"y","datatype":"BYTES","shape":` + shape + `,"parameters":{"binary_data_size":` + size + `}}]}`
	}
	for _, c := range []struct {
		name, header, doc string
		blob              string
		want              string
	}{
		{"negative header", "-1", in("4", ""), "abcd", "no length"},
		{"huge header", "99999999999999999999", in("4", ""), "abcd", "no length"},
		{"header beyond", "100000", in("4", ""), "abcd", "only"},
		{"header is text", "abc", in("4", ""), "abcd", "no length"},
		{"header short", "10", in("4", ""), "abcd", "not the JSON object"},
		{"negative", "", in("-4", ""), "abcd", "no length"},
		{"fraction", "", in("4.5", ""), "abcd", "no length"},
		{"text", "", in(`"4"`, ""), "abcd", "no length"},
		{"overflow", "", in("18446744073709551616", ""), "abcd", "no length"},
		{"max", "", in("18446744073709551615", ""), "abcd", "only 4 bytes left"},
		{"beyond", "", in("5", ""), "abcd", "only 4 bytes left"},
		{"less than the shape", "", in("3", ""), "abc", "needs 4 bytes, there are 3"},
		{"more than the shape", "", in("8", ""), "abcdefgh", "needs 4 bytes, there are 8"},
		{"left over", "", in("4", ""), "abcdX", "1 bytes after the last"},
		{"data and size", "", in("4", `,"data":[1]`), "abcd", "both"},
		{"string length", "", bytesIn("[1]", "8"), "\x05\x00\x00\x00abcd", "its length is 5, there are 4"},
		{"string length huge", "", bytesIn("[1]", "8"), "\xff\xff\xff\xffabcd", "its length is 4294967295"},
		{"string left over", "", bytesIn("[1]", "9"), "\x04\x00\x00\x00abcdX", "1 bytes after the last element"},
		{"strings missing", "", bytesIn("[2]", "8"), "\x04\x00\x00\x00abcd", "no 4 bytes for its length"},
		{"strings by the million", "", bytesIn("[4000000000]", "8"), "\x04\x00\x00\x00abcd", "for their lengths alone"},
		{"shape overflows", "", bytesIn("[9223372036854775807,2]", "8"), "\x04\x00\x00\x00abcd", "too many"},
		{"no such output", "", `{"inputs":[],"outputs":[{"name":"x","parameters":{"binary_data":1}}]}`, "", "missing"},
	} {
		header := c.header
		if header == "" {
			header = fmt.Sprint(len(c.doc))
		}
		status, _, v, _ := post(t, h.URL+"/v2/models/m/infer", header, []byte(c.doc+c.blob))
		if msg, _ := v["error"].(string); status != 400 || !strings.Contains(msg, c.want) {
			t.Errorf("%s: %d %v, want 400 with %q", c.name, status, v, c.want)
		}
	}
	if status, _, v, _ := post(t, h.URL+"/v2/models/m/infer", "1", []byte("{}"), headerLength, "2"); status != 400 {
		t.Errorf("two headers: %d %v", status, v)
	}
}

// Compressed requests are taken, and bombs are not.
func TestCompressed(t *testing.T) {
	s, h := start(t, Config{MaxBody: 100 << 10}, echo(port("x", "i64", -1)))
	squeeze := func(enc, text string) []byte {
		var b bytes.Buffer
		var w io.WriteCloser = gzip.NewWriter(&b)
		if enc == "deflate" {
			w = zlib.NewWriter(&b)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	json := func(text string) string { return fmt.Sprint(len(text)) }
	for _, c := range []struct {
		enc    string
		body   []byte
		status int
	}{
		{"gzip", squeeze("gzip", oneInt), 200},
		{"deflate", squeeze("deflate", oneInt), 200},
		{"gzip", []byte(oneInt), 400},
		{"deflate", []byte(oneInt), 400},
		{"br", []byte(oneInt), 415},
		{"gzip", squeeze("gzip", oneInt+strings.Repeat(" ", 50<<20)), 413},
		{"deflate", squeeze("deflate", oneInt+strings.Repeat(" ", 50<<20)), 413},
		{"gzip", squeeze("gzip", oneInt)[:20], 400},
	} {
		status, _, v, _ := post(t, h.URL+"/v2/models/m/infer", json(oneInt), c.body, "Content-Encoding", c.enc)
		if status != c.status {
			t.Errorf("%s, %d bytes: %d %v, want %d", c.enc, len(c.body), status, v, c.status)
		}
	}
	if n := s.buffered.Load(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

func FuzzBinaryRequest(f *testing.F) {
	f.Add([]byte(oneInt), 99)
	f.Add([]byte(`{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}]}12345678`), 92)
	f.Add([]byte(`{"inputs":[{"name":"s","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}],"outputs":[{"name":"x","parameters":{"binary_data":true}}]}`+"\x01\x00\x00\x00a"), 143)
	f.Add([]byte("12345678"), 0)
	ports := newCodecPorts(&artifact.Interface{Inputs: []artifact.Port{{Name: "x", Kind: "optional", Elem: &artifact.Port{DType: "i64"}}, {Name: "s", Kind: "optional", Elem: &artifact.Port{DType: "string"}},
		{Name: "f", Kind: "optional", Elem: &artifact.Port{DType: "f32"}}}, Outputs: []artifact.Port{port("x", "i64")}})
	one := newCodecPorts(&artifact.Interface{Inputs: []artifact.Port{port("x", "f16", 3, -1)}, Outputs: []artifact.Port{port("x", "i64")}})
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		var req *request
		if n < 0 || n > len(body) {
			return
		}
		wr, err := parseRequest(body[:n])
		if err == nil {
			_, _ = wr.params()
			req, err = wr.decode(body[n:], &ports)
		}
		if err != nil {
			if req, err = decodeRaw(body, &one); err != nil {
				return
			}
		}
		for i := range req.inputs {
			if err := req.inputs[i].Check(); err != nil {
				t.Errorf("accepted a malformed tensor: %v", err)
			}
		}
	})
}
