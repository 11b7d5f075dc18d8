package serve

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/oip"
	"github.com/waybill-ml/waybill/edge-runtime/session"
)

// sumRequest asks the model of a running sum for one more element; extra goes into the JSON.
func sumRequest(k int, extra string) []byte {
	x := engine.Of([]float32{float32(k) / 8, -0.25, 1e-3}).Data
	doc := fmt.Sprintf(`{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"parameters":{"binary_data_size":12}}%s}`, extra)
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(doc))), append([]byte(doc), x...)...)
}

func askSum(t *testing.T, url string, body []byte) (status int, doc map[string]any, y []byte) {
	t.Helper()
	n := binary.LittleEndian.Uint32(body)
	status, _, doc, y = post(t, url+"/v2/models/sum/infer", fmt.Sprint(n), body[4:])
	return status, doc, y
}

// stream asks for steps first to last of a stream by session, over REST and gRPC in turn, and compares with the same stream
// of explicit state.
func stream(t *testing.T, url, id string, m *engine.Model, state engine.Tensor, from, to int) engine.Tensor {
	t.Helper()
	client := inferClient(t, url)
	for k := from; k < to; k++ {
		x := engine.Of([]float32{float32(k) / 8, -0.25, 1e-3})
		want, err := m.Run(t.Context(), []engine.Tensor{x, state})
		if err != nil {
			t.Fatal(err)
		}
		state = want[1]
		if k%2 == 0 {
			status, doc, y := askSum(t, url, sumRequest(k, fmt.Sprintf(`],"parameters":{"sequence_id":%q,"sequence_start":%v,"binary_data_output":true}`, id, k == 0)))
			if status != 200 || !bytes.Equal(y, want[0].Data) || len(doc["outputs"].([]any)) != 1 {
				t.Fatalf("step %d: %d %v %x, want %x", k, status, doc, y, want[0].Data)
			}
			continue
		}
		res, err := client.CallUnary(t.Context(), connect.NewRequest(&oip.ModelInferRequest{ModelName: "sum",
			Parameters:       map[string]*oip.InferParameter{"sequence_id": textParam(id)},
			Inputs:           []*oip.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{3}}},
			Outputs:          []*oip.ModelInferRequest_InferRequestedOutputTensor{{Name: "s_out"}, {Name: "y"}},
			RawInputContents: [][]byte{x.Data}}))
		if err != nil || !bytes.Equal(res.Msg.GetRawOutputContents()[1], want[0].Data) || !bytes.Equal(res.Msg.GetRawOutputContents()[0], want[1].Data) {
			t.Fatalf("step %d: %v %v", k, res, err)
		}
	}
	return state
}

// A stream by session is the stream with explicit state bit for bit, on whichever protocol; it stays on its model through a
// switch, goes on when that model comes back, and is told to start anew when it does not.
func TestSessionStream(t *testing.T) {
	e := newEngine(t)
	s := New(Config{Sessions: session.Config{Grace: time.Hour}})
	one, two := runningSum(t, e, 0.5), runningSum(t, e, 2)
	ref := runningSum(t, e, 0.5)
	first, err := engine.InitialState(ref.Interface())
	if err != nil {
		t.Fatal(err)
	}
	s.Swap("sum", Model{digestN(1), one})
	url, _ := serveOn(t, s)
	state := stream(t, url, "a", ref, first[0], 0, 10)
	_, gone := s.Swap("sum", Model{digestN(2), two})
	state = stream(t, url, "a", ref, state, 10, 20)
	select {
	case <-gone:
		t.Error("the old model was let go under a session")
	default:
	}
	// A new session is on the new model.
	first2, err := engine.InitialState(two.Interface())
	if err != nil {
		t.Fatal(err)
	}
	stream(t, url, "b", two, first2[0], 0, 4)
	// The same artifact again, loaded anew: the session goes over to it, and the first instance is let go.
	_, gone2 := s.Swap("sum", Model{digestN(1), runningSum(t, e, 0.5)})
	state = stream(t, url, "a", ref, state, 20, 30)
	<-gone
	// The end.
	x := sumRequest(30, `],"parameters":{"sequence_id":"b","sequence_end":true}`)
	if status, doc, _ := askSum(t, url, x); status != 200 {
		t.Errorf("end: %d %v", status, doc)
	}
	<-gone2
	if status, doc, _ := askSum(t, url, x); status != http.StatusGone || !strings.Contains(fmt.Sprint(doc["error"]), "its client ended it") {
		t.Errorf("after the end: %d %v", status, doc)
	}
	// Explicit state does not mix with a session, and works without one.
	own := `,{"name":"s","datatype":"FP32","shape":[3],"data":[1,2,3]}]`
	if status, doc, _ := askSum(t, url, sumRequest(0, own+`,"parameters":{"sequence_id":"a"}`)); status != 400 || !strings.Contains(fmt.Sprint(doc["error"]), "the server carries") {
		t.Errorf("state and session: %d %v", status, doc)
	}
	stream(t, url, "a", ref, state, 30, 32) // the refused request did not advance it
	if status, doc, _ := askSum(t, url, sumRequest(0, own)); status != 200 || len(doc["outputs"].([]any)) != 2 {
		t.Errorf("explicit state: %d %v", status, doc)
	}
}

// After the grace a session of the replaced model ends, and says so.
func TestSessionEndsWithItsModel(t *testing.T) {
	e := newEngine(t)
	s := New(Config{Sessions: session.Config{Grace: time.Millisecond}})
	s.Swap("sum", Model{digestN(1), runningSum(t, e, 0.5)})
	url, _ := serveOn(t, s)
	begin := sumRequest(0, `],"parameters":{"sequence_id":9,"sequence_start":true}`)
	if status, doc, _ := askSum(t, url, begin); status != 200 {
		t.Fatalf("%d %v", status, doc)
	}
	_, gone := s.Swap("sum", Model{digestN(2), runningSum(t, e, 2)})
	<-gone // nobody had to come and ask
	status, doc, _ := askSum(t, url, sumRequest(1, `],"parameters":{"sequence_id":9}`))
	if status != http.StatusGone || !strings.Contains(fmt.Sprint(doc["error"]), "replaced") {
		t.Errorf("%d %v", status, doc)
	}
	_, err := inferClient(t, url).CallUnary(t.Context(), connect.NewRequest(&oip.ModelInferRequest{ModelName: "sum",
		Parameters: map[string]*oip.InferParameter{"sequence_id": {ParameterChoice: &oip.InferParameter_Int64Param{Int64Param: 9}}}}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("gRPC: %v", err)
	}
	if status, doc, _ := askSum(t, url, begin); status != 200 {
		t.Errorf("started anew: %d %v", status, doc)
	}
}

// The mutant: when a session's state is given to the model that replaced its own, the answers are wrong. This is what keeping
// sessions to their digest prevents.
func TestSessionStateOfAnotherModel(t *testing.T) {
	e := newEngine(t)
	one, two := runningSum(t, e, 0.5), runningSumBy(t, e, 0.5, "Sub")
	first, err := engine.InitialState(one.Interface())
	if err != nil {
		t.Fatal(err)
	}
	x := engine.Of([]float32{1, 2, 3})
	a, err := one.Run(t.Context(), []engine.Tensor{x, first[0]})
	if err != nil {
		t.Fatal(err)
	}
	right, err := one.Run(t.Context(), []engine.Tensor{x, a[1]})
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := two.Run(t.Context(), []engine.Tensor{x, a[1]})
	if err != nil {
		t.Fatal(err)
	}
	if engine.Equal(right[0], wrong[0]) {
		t.Error("both models go on alike: the test shows nothing")
	}
}

func TestSessionLimits(t *testing.T) {
	e := newEngine(t)
	s := New(Config{Sessions: session.Config{Max: 2, TTL: time.Hour}})
	s.Swap("sum", Model{digestN(1), runningSum(t, e, 0.5)})
	url, _ := serveOn(t, s)
	for i := range 3 {
		status, doc, _ := askSum(t, url, sumRequest(0, fmt.Sprintf(`],"parameters":{"sequence_id":%d,"sequence_start":true}`, i+1)))
		if want := []int{200, 200, 429}[i]; status != want {
			t.Errorf("session %d: %d %v, want %d", i, status, doc, want)
		}
	}
	for _, c := range []struct{ params, want string }{
		{`"sequence_id":1.5`, "text or a whole number"},
		{`"sequence_id":-1`, "text or a whole number"},
		{`"sequence_id":[1]`, "text or a whole number"},
		{`"sequence_id":"` + strings.Repeat("x", 129) + `"`, "129 bytes"},
		{`"sequence_start":true`, "need a sequence_id"},
		{`"sequence_id":0,"sequence_end":true`, "need a sequence_id"},
		{`"sequence_id":1,"sequence_start":"yes"`, "true or false"},
		{`"timeout":"soon"`, "microseconds"},
	} {
		status, doc, _ := askSum(t, url, sumRequest(0, `],"parameters":{`+c.params+`}`))
		if status != 400 || !strings.Contains(fmt.Sprint(doc["error"]), c.want) {
			t.Errorf("%s: %d %v", c.params, status, doc)
		}
	}
	if status, doc, _ := askSum(t, url, sumRequest(0, `],"parameters":{"sequence_id":77}`)); status != http.StatusGone || !strings.Contains(fmt.Sprint(doc["error"]), "sequence_start") {
		t.Errorf("never begun: %d %v", status, doc)
	}
	if n, _ := s.sessions.Usage(); n != 2 {
		t.Errorf("%d sessions", n)
	}
	// A request that is refused does not leave a session behind.
	body, err := json.Marshal(map[string]any{"inputs": []any{}, "parameters": map[string]any{"sequence_id": "z", "sequence_start": true}})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, _ := askSum(t, url, sumRequest(0, `],"parameters":{"sequence_id":1,"sequence_end":true}`)); status != 200 {
		t.Errorf("end: %d", status)
	}
	if status, _, _ := do(t, "POST", url+"/v2/models/sum/infer", "application/json", string(body)); status != 400 {
		t.Errorf("without input: %d", status)
	}
	if n, _ := s.sessions.Usage(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}
