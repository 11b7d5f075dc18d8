package jsbundle

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// protocolCases are requests, good and bad; every host gives the runtime's status and answer, errors with their text.
func protocolCases(t *testing.T, w *world) []protocolCase {
	in, out := w.iface.Inputs[0].Name, w.iface.Outputs[0].Name
	vals := make([]string, 30)
	for i := range vals {
		vals[i] = fmt.Sprintf("%d.5", i)
	}
	flat := strings.Join(vals, ",")
	tensor := func(shape, dt, rest string) string {
		return fmt.Sprintf(`{"name":%q,"shape":%s,"datatype":%q%s}`, in, shape, dt, rest)
	}
	req := func(inputs, more string) string { return fmt.Sprintf(`{"inputs":[%s]%s}`, inputs, more) }
	good := tensor("[1,30]", "FP32", `,"data":[`+flat+`]`)
	infer := "/v2/models/churn/infer"
	post := func(name, body string) protocolCase {
		return protocolCase{name: name, method: "POST", path: infer, body: []byte(body)}
	}
	cs := []protocolCase{
		{name: "metadata of the model", method: "GET", path: "/v2/models/churn"},
		{name: "version", method: "GET", path: "/v2/models/churn/versions/1.0.0"},
		{name: "head", method: "HEAD", path: "/v2/models/churn"},
		{name: "ready", method: "GET", path: "/v2/models/churn/ready"},
		{name: "live", method: "GET", path: "/v2/health/live"},
		{name: "all ready", method: "GET", path: "/v2/health/ready"},
		{name: "other version", method: "GET", path: "/v2/models/churn/versions/2"},
		{name: "other model", method: "GET", path: "/v2/models/x"},
		{name: "nothing", method: "GET", path: "/v3"},
		{name: "below", method: "GET", path: "/v2/models/churn/x"},
		{name: "method", method: "GET", path: infer},
		{name: "method of metadata", method: "POST", path: "/v2/models/churn"},
		post("flat", req(good, "")),
		post("id", req(good, `,"id":"a\u00e9\n"`)),
		post("id that is no text", req(good, `,"id":7`)),
		post("nested", req(tensor("[1,30]", "FP32", `,"data":[[ `+flat+` ]]`), "")),
		post("nested wrongly", req(tensor("[1,30]", "FP32", `,"data":[[[`+flat+`]]]`), "")),
		post("nested too short", req(tensor("[2,30]", "FP32", `,"data":[[`+flat+`]]`), "")),
		post("specials", req(tensor("[1,30]", "FP32", `,"data":["NaN","Infinity","-Infinity",null,-0,1e-45,3.4028234e38,1e-400`+strings.Repeat(",0.1", 22)+`]`), "")),
		post("out of range", req(tensor("[1,30]", "FP32", `,"data":[3.5e38`+strings.Repeat(",0", 29)+`]`), "")),
		post("a text", req(tensor("[1,30]", "FP32", `,"data":["1"`+strings.Repeat(",0", 29)+`]`), "")),
		post("true", req(tensor("[1,30]", "FP32", `,"data":[true`+strings.Repeat(",0", 29)+`]`), "")),
		post("two rows", req(tensor("[2,30]", "FP32", `,"data":[`+flat+`,`+flat+`]`), "")),
		post("no rows", req(tensor("[0,30]", "FP32", `,"data":[]`), "")),
		post("output", req(good, fmt.Sprintf(`,"outputs":[{"name":%q}]`, out))),
		post("unknown output", req(good, `,"outputs":[{"name":"z"}]`)),
		post("unknown fields", req(good, `,"more":{"x":[1,{"data":[1]}]}`)),
		post("null members", `{"inputs":[`+good+`],"id":null,"outputs":null,"parameters":null}`),
		post("too few", req(tensor("[1,30]", "FP32", `,"data":[1]`), "")),
		post("too many", req(tensor("[1,30]", "FP32", `,"data":[`+flat+`,1]`), "")),
		post("wrong size", req(tensor("[1,29]", "FP32", `,"data":[`+strings.Join(vals[1:], ",")+`]`), "")),
		post("rank", req(tensor("[30]", "FP32", `,"data":[`+flat+`]`), "")),
		post("negative", req(tensor("[-1,30]", "FP32", `,"data":[`+flat+`]`), "")),
		post("huge", req(tensor("[4611686018427387904,30]", "FP32", `,"data":[`+flat+`]`), "")),
		post("shape with a fraction", req(tensor("[1.0,30]", "FP32", `,"data":[`+flat+`]`), "")),
		post("datatype", req(tensor("[1,30]", "FP64", `,"data":[`+flat+`]`), "")),
		post("no datatype", req(fmt.Sprintf(`{"name":%q,"shape":[1,30],"data":[%s]}`, in, flat), "")),
		post("no shape", req(fmt.Sprintf(`{"name":%q,"datatype":"FP32","data":[%s]}`, in, flat), "")),
		post("no data", req(tensor("[1,30]", "FP32", ""), "")),
		post("data is an object", req(tensor("[1,30]", "FP32", `,"data":{"a":1}`), "")),
		post("missing", req("", "")),
		post("twice", req(good+","+good, "")),
		post("unknown input", req(good+`,{"name":"z","shape":[1],"datatype":"FP32","data":[1]}`, "")),
		post("__proto__", req(good+`,{"name":"__proto__","shape":[1],"datatype":"FP32","data":[1]}`, "")),
		post("empty", ""),
		post("broken", `{"inputs":[`),
		post("trailing", req(good, "")+"x"),
		post("array", "[]"),
		post("number", "01"),
		post("control character", "{\"id\":\"a\nb\"}"),
		post("escape", `{"id":"\x"}`),
		post("null", "null"),
		post("text", `"a"`),
		post("null among parameters", req(good, `,"parameters":{"binary_data_output":null,"sequence_id":null}`)),
		post("a flag that is an object", req(good, `,"parameters":{"binary_data_output":{"a":[1,"b",null,1.5]}}`)),
		post("a flag of an output", req(good, fmt.Sprintf(`,"outputs":[{"name":%q,"parameters":{"binary_data":"yes"}}]`, out))),
		post("an input that is none", `{"inputs":[7]}`),
		post("name of a number", `{"inputs":[{"name":7}]}`),
		post("a name with quotes", `{"inputs":[{"name":"a\"b","shape":[1],"datatype":"FP32","data":[1]}]}`),
		post("shape is a text", `{"inputs":[{"name":"`+in+`","shape":"1"}]}`),
		post("larger than 64 bits", req(tensor("[9223372036854775808,30]", "FP32", `,"data":[`+flat+`]`), "")),
		post("more than are there", req(tensor("[3000000000,30]", "FP32", `,"data":[`+flat+`]`), "")),
		post("no rows of many", req(tensor("[0,4503599627370496]", "FP32", `,"data":[]`), "")),
		post("many dimensions", req(tensor("[1,1,1,1,1,1,1,1,30]", "FP32", `,"data":[`+flat+`]`), "")),
		post("nested too deep", req(tensor("[1,30]", "FP32", `,"data":[[[1]]]`), "")),
		post("nested, more rows", req(tensor("[1,30]", "FP32", `,"data":[[`+flat+`],[`+flat+`]]`), "")),
		post("data is a number", req(tensor("[1,1]", "FP32", `,"data":7`), "")),
		post("data is null", req(tensor("[1,1]", "FP32", `,"data":null`), "")),
		post("no data for no rows", req(tensor("[0,30]", "FP32", ""), "")),
		post("deep", strings.Repeat("[", 100_000)),
		post("inputs are an object", `{"inputs":{}}`),
		post("flag", req(good, `,"parameters":{"binary_data_output":1}`)),
		{name: "content type", method: "POST", path: infer, header: map[string]string{"Content-Type": "text/csv"}, body: []byte(req(good, ""))},
		{name: "charset", method: "POST", path: infer, header: map[string]string{"Content-Type": "application/json; charset=latin1"}, body: []byte(req(good, ""))},
		{name: "utf-8", method: "POST", path: infer, header: map[string]string{"Content-Type": `application/json; charset="UTF-8"`}, body: []byte(req(good, ""))},
		{name: "curl", method: "POST", path: infer, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, body: []byte(req(good, ""))},
		{name: "a page", method: "POST", path: infer, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Origin": "https://example.com"}, body: []byte(req(good, ""))},
		{name: "coding", method: "POST", path: infer, header: map[string]string{"Content-Encoding": "br"}, body: []byte(req(good, ""))},
		{name: "no gzip", method: "POST", path: infer, header: map[string]string{"Content-Encoding": "gzip"}, body: []byte(req(good, ""))},
		{name: "raw", method: "POST", path: infer, header: map[string]string{"Inference-Header-Content-Length": "0"}, body: make([]byte, 240)},
		{name: "raw, odd", method: "POST", path: infer, header: map[string]string{"Inference-Header-Content-Length": "0"}, body: make([]byte, 241)},
		{name: "length too long", method: "POST", path: infer, header: map[string]string{"Inference-Header-Content-Length": "9999"}, body: []byte("{}")},
		{name: "length is none", method: "POST", path: infer, header: map[string]string{"Inference-Header-Content-Length": "-1"}, body: []byte("{}")},
	}
	binary := func(name, params, tail string) {
		head := req(fmt.Sprintf(`{"name":%q,"shape":[1,30],"datatype":"FP32","parameters":{%s}}`, in, params), `,"parameters":{"binary_data_output":true}`)
		cs = append(cs, protocolCase{name: name, method: "POST", path: infer, header: map[string]string{"Inference-Header-Content-Length": fmt.Sprint(len(head))}, body: append([]byte(head), tail...)})
	}
	binary("binary", `"binary_data_size":120`, strings.Repeat("\x00\x00\x80\x3f", 30))
	binary("binary, short", `"binary_data_size":116`, strings.Repeat("\x00\x00\x80\x3f", 29))
	binary("binary, not there", `"binary_data_size":120`, "")
	binary("binary, more", `"binary_data_size":120`, strings.Repeat("\x00\x00\x80\x3f", 31))
	binary("binary, negative", `"binary_data_size":-1`, "")
	binary("binary, null", `"binary_data_size":null`, "")
	binary("binary, a fraction", `"binary_data_size":1.5`, "")
	binary("binary, no size", `"binary_data_size":"120"`, strings.Repeat("\x00\x00\x80\x3f", 30))
	binary("binary and data", `"binary_data_size":120},"data":[1],"x":{`, strings.Repeat("\x00\x00\x80\x3f", 30))
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	_, _ = zw.Write([]byte(req(good, ""))) // into memory
	_ = zw.Close()
	cs = append(cs, protocolCase{name: "gzip", method: "POST", path: infer, header: map[string]string{"Content-Encoding": "gzip"}, body: z.Bytes()})
	return cs
}

type protocolCase struct {
	name, method, path string
	header             map[string]string
	body               []byte
}

// loosely are the beginnings of errors after which hosts may go on in their own words: what their parser of JSON or their decompressor says.
func loosely() []string {
	return []string{"the request is not the JSON object that the protocol wants: ", "the request could not be read: "}
}

// sameError holds an error of a host (h2, b2) against the runtime's: the same JSON, in shape and text, and the same headers.
func sameError(t *testing.T, h1, h2 http.Header, b1, b2 []byte, loose ...string) {
	t.Helper()
	var e1, e2 map[string]string
	if err := json.Unmarshal(b1, &e1); err != nil || e1["error"] == "" || len(e1) != 1 {
		t.Fatalf("%s is no error of the runtime: %v", b1, err)
	}
	if err := json.Unmarshal(b2, &e2); err != nil || len(e2) != 1 {
		t.Fatalf("%s is no error of the protocol: %v", b2, err)
	}
	same := e1["error"] == e2["error"]
	for _, p := range append(loosely(), loose...) {
		same = same || strings.HasPrefix(e1["error"], p) && strings.HasPrefix(e2["error"], p) && len(e2["error"]) >= len(p)
	}
	if !same {
		t.Errorf("%q, the runtime: %q", e2["error"], e1["error"])
	}
	for _, h := range []string{"Content-Type", "Retry-After"} {
		if h1.Get(h) != h2.Get(h) {
			t.Errorf("%s %q, the runtime: %q", h, h2.Get(h), h1.Get(h))
		}
	}
}

// sameProtocol holds a host against the runtime's own server.
func sameProtocol(t *testing.T, w *world, url string, cases []protocolCase) {
	own := w.server(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s1, h1, b1 := ask(t, c.method, own+c.path, c.header, c.body)
			s2, h2, b2 := ask(t, c.method, url+c.path, c.header, c.body)
			if s1 != s2 {
				t.Fatalf("%d %.200s, the runtime: %d %.200s", s2, b2, s1, b1)
			}
			if s1 != http.StatusOK {
				sameError(t, h1, h2, b1, b2)
				if h1.Get("Allow") != h2.Get("Allow") {
					t.Errorf("Allow %q, the runtime: %q", h2.Get("Allow"), h1.Get("Allow"))
				}
				return
			}
			if a, b := h1.Get("Content-Type"), h2.Get("Content-Type"); a != b {
				t.Errorf("content type %q, the runtime: %q", b, a)
			}
			n1, n2 := len(b1), len(b2)
			if l := h1.Get("Inference-Header-Content-Length"); l != "" {
				n1, n2 = atoi(t, l), atoi(t, h2.Get("Inference-Header-Content-Length"))
			}
			if n1 > 0 && !jsonEqual(b1[:n1], b2[:n2]) || !bytes.Equal(b1[n1:], b2[n2:]) {
				t.Errorf("%s, the runtime: %s", b2, b1)
			}
		})
	}
}

func TestNodeProtocol(t *testing.T) {
	tool(t, "node")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	url, _ := nodeServer(t, dir)
	sameProtocol(t, w, url, protocolCases(t, w))
}

func TestWorkerdProtocol(t *testing.T) {
	tool(t, os.Getenv("WAYBILL_WORKERD"), "workerd")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	url, _ := workerd(t, dir)
	sameProtocol(t, w, url, protocolCases(t, w))
}

// Sessions are not here, and say so.
func TestNoSessions(t *testing.T) {
	tool(t, "node")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	url, _ := nodeServer(t, dir)
	status, _, b := ask(t, http.MethodPost, url+"/v2/models/churn/infer", nil, []byte(`{"inputs":[],"parameters":{"sequence_id":5}}`))
	if status != http.StatusBadRequest || !strings.Contains(string(b), "sequence_id") {
		t.Errorf("%d %s", status, b)
	}
}
