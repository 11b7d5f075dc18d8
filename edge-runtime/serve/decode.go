package serve

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// codecPorts is the interface of one model, indexed for the codec.
type codecPorts struct {
	inputs  []artifact.Port
	outputs []artifact.Port
	input   map[string]int
	output  map[string]int
	state   []stateVar
}

// stateVar is an input that carries a stream's state from call to call.
type stateVar struct {
	input, output int
	first         engine.Tensor // what it is when a request leaves it out
}

func newCodecPorts(i *artifact.Interface) codecPorts {
	c := codecPorts{inputs: i.Inputs, outputs: i.Outputs, input: map[string]int{}, output: map[string]int{}}
	for n, p := range i.Inputs {
		c.input[p.Name] = n
	}
	for n, p := range i.Outputs {
		c.output[p.Name] = n
	}
	state, err := engine.InitialState(i) // the engine refuses to load a model whose state is wrong
	for n := range state {
		if err == nil {
			c.state = append(c.state, stateVar{c.input[i.State[n].Input], c.output[i.State[n].Output], state[n]})
		}
	}
	return c
}

// begin is the state of a stream before its first call.
func (c *codecPorts) begin() []engine.Tensor {
	var v []engine.Tensor
	for _, s := range c.state {
		v = append(v, s.first)
	}
	return v
}

// resume puts the state of a session into a request, which must not bring its own. Unless it asks for them the state's
// outputs are not sent: the server carries them.
func (c *codecPorts) resume(req *request, state []engine.Tensor) error {
	carried := map[int]bool{}
	for i, s := range c.state {
		if req.given[s.input] {
			return diag.Errorf("input %q is the session's state, which the server carries: leave it out, or send no sequence_id", c.inputs[s.input].Name)
		}
		req.inputs[s.input] = state[i]
		carried[s.output] = true
	}
	if !req.chosen {
		req.outputs = slices.DeleteFunc(req.outputs, func(o wanted) bool { return carried[o.output] })
	}
	return nil
}

// carried picks the state out of a model's outputs.
func (c *codecPorts) carried(outs []engine.Tensor) []engine.Tensor {
	var v []engine.Tensor
	for _, s := range c.state {
		v = append(v, outs[s.output])
	}
	return v
}

// datatype is the protocol's name for a port. What the protocol has no type for is shown as BYTES (JSON text, see
// encode.go) when it is no tensor, else by our own name in upper case.
func datatype(p *artifact.Port) string {
	if p.Kind != "" && p.Kind != "tensor" {
		return "BYTES"
	}
	d, ok := abi.ParseDType(p.DType)
	if !ok {
		return strings.ToUpper(p.DType)
	}
	i, _ := d.Info()
	if i.OIP == "" {
		return strings.ToUpper(i.Name)
	}
	return i.OIP
}

// request is a decoded inference request.
type request struct {
	id      string
	hasID   bool
	session string
	inputs  []engine.Tensor // in the order of the interface
	given   []bool          // which of them the request brought
	outputs []wanted        // in the request's order
	chosen  bool            // the request listed its outputs
	typed   bool            // gRPC: the request had typed contents, and so may the answer
}

// wanted is an output to send, by its number in the interface.
type wanted struct {
	output int
	binary bool
}

// wireRequest is the protocol's request; fields that the protocol does not know are ignored, as it demands.
type wireRequest struct {
	ID         *string                    `json:"id"`
	Parameters map[string]json.RawMessage `json:"parameters"`
	Inputs     []struct {
		Name       string                     `json:"name"`
		Shape      *[]int64                   `json:"shape"`
		Datatype   string                     `json:"datatype"`
		Parameters map[string]json.RawMessage `json:"parameters"`
		Data       json.RawMessage            `json:"data"`
	} `json:"inputs"`
	Outputs []struct {
		Name       string                     `json:"name"`
		Parameters map[string]json.RawMessage `json:"parameters"`
	} `json:"outputs"`

	session string
}

// parseRequest reads the JSON of a request.
func parseRequest(raw []byte) (*wireRequest, error) {
	var wr wireRequest
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&wr); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the request is empty; it must be a JSON object with inputs")
		}
		return nil, diag.Errorf("the request is not the JSON object that the protocol wants: %w", jsonCause(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the request's JSON object")
	}
	return &wr, nil
}

// jsonCause says what is wrong in the words of the request: encoding/json names types of this program.
func jsonCause(err error) error {
	var te *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ends in the middle")
	case !errors.As(err, &te):
		return err
	case te.Field == "":
		return diag.Errorf("it is a JSON %s", te.Value)
	}
	return diag.Errorf("%s cannot be a JSON %s (at byte %d)", te.Field, te.Value, te.Offset)
}

// params reads the parameters that mean something here.
func (wr *wireRequest) params() (p params, err error) {
	if raw, ok := wr.Parameters["sequence_id"]; ok {
		var n uint64
		switch {
		case json.Unmarshal(raw, &p.sequence) == nil:
		case json.Unmarshal(raw, &n) == nil && n > 0:
			p.sequence = strconv.FormatUint(n, 10)
		case json.Unmarshal(raw, &n) != nil:
			return p, diag.Errorf("parameter sequence_id is %s; it is a text or a whole number", raw)
		}
	}
	if p.start, err = flag(wr.Parameters, "sequence_start"); err != nil {
		return p, err
	}
	if p.end, err = flag(wr.Parameters, "sequence_end"); err != nil {
		return p, err
	}
	if raw, ok := wr.Parameters["timeout"]; ok {
		var us uint64
		if err := json.Unmarshal(raw, &us); err != nil {
			return p, diag.Errorf("parameter timeout is %s; it is a number of microseconds", raw)
		}
		p.timeout = microseconds(us)
	}
	wr.session = p.sequence
	return p, p.check()
}

func (p *params) check() error {
	if len(p.sequence) > maxSequenceID {
		return diag.Errorf("parameter sequence_id has %d bytes, more than %d", len(p.sequence), maxSequenceID)
	}
	if p.sequence == "" && (p.start || p.end) {
		return errors.New("sequence_start and sequence_end need a sequence_id other than 0")
	}
	return nil
}

const maxSequenceID = 128

func microseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(time.Hour/time.Microsecond))) * time.Microsecond
}

// flag reads a parameter that is true or false; without it, it is false.
func flag(m map[string]json.RawMessage, name string) (v bool, err error) {
	raw, ok := m[name]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return false, diag.Errorf("parameter %s is %s; it is true or false", name, raw)
	}
	return v, nil
}

// decode reads the tensors of a request against a model's interface. blob is what follows the JSON: the binary tensors in the
// order of the inputs. They are not copied.
func (wr *wireRequest) decode(blob []byte, ports *codecPorts) (*request, error) {
	req := newRequest(ports)
	req.session = wr.session
	if wr.ID != nil {
		req.id, req.hasID = *wr.ID, true
	}
	for i := range wr.Inputs {
		in := &wr.Inputs[i]
		n, err := req.claim(ports, in.Name)
		if err != nil {
			return nil, err
		}
		if in.Shape == nil {
			return nil, diag.Errorf("input %q has no shape", in.Name)
		}
		var t engine.Tensor
		if size, ok := in.Parameters["binary_data_size"]; ok {
			var mine []byte
			if mine, blob, err = cut(size, in.Data, blob); err == nil {
				t, err = decodeBytes(&ports.inputs[n], in.Datatype, *in.Shape, mine)
			}
		} else {
			t, err = decodeTensor(&ports.inputs[n], in.Datatype, *in.Shape, in.Data)
		}
		if err != nil {
			return nil, diag.Errorf("input %q: %w", in.Name, err)
		}
		req.inputs[n] = t
	}
	if len(blob) > 0 {
		return nil, diag.Errorf("there are %d bytes after the last binary tensor", len(blob))
	}
	if err := req.complete(ports); err != nil {
		return nil, err
	}
	all, err := flag(wr.Parameters, "binary_data_output")
	if err != nil {
		return nil, err
	}
	for i := range wr.Outputs {
		o := &wr.Outputs[i]
		binary := all
		if _, ok := o.Parameters["binary_data"]; ok {
			if binary, err = flag(o.Parameters, "binary_data"); err != nil {
				return nil, diag.Errorf("output %q: %w", o.Name, err)
			}
		}
		if err := req.want(ports, o.Name, binary); err != nil {
			return nil, err
		}
	}
	if len(wr.Outputs) == 0 {
		req.wantAll(ports, all)
	}
	return req, nil
}

func newRequest(ports *codecPorts) *request {
	return &request{inputs: make([]engine.Tensor, len(ports.inputs)), given: make([]bool, len(ports.inputs))}
}

// claim finds the input that a request names, once.
func (r *request) claim(ports *codecPorts, name string) (int, error) {
	n, ok := ports.input[name]
	if !ok {
		return 0, diag.Errorf("the model has no input %q; it has %s", name, portNames(ports.inputs))
	}
	if r.given[n] {
		return 0, diag.Errorf("input %q stands twice in the request", name)
	}
	r.given[n] = true
	return n, nil
}

// complete fills in what a request may leave out.
func (r *request) complete(ports *codecPorts) error {
	for _, s := range ports.state {
		if !r.given[s.input] {
			r.inputs[s.input] = s.first
		}
	}
	for n, ok := range r.given {
		switch {
		case ok || r.inputs[n].Shape != nil:
		case ports.inputs[n].Kind == "optional":
			r.inputs[n] = engine.Tensor{Kind: abi.Optional}
		default:
			return diag.Errorf("input %q is missing; the model needs %s", ports.inputs[n].Name, portNames(ports.inputs))
		}
	}
	return nil
}

func (r *request) want(ports *codecPorts, name string, binary bool) error {
	n, ok := ports.output[name]
	if !ok {
		return diag.Errorf("the model has no output %q; it has %s", name, portNames(ports.outputs))
	}
	r.outputs, r.chosen = append(r.outputs, wanted{n, binary}), true
	return nil
}

func (r *request) wantAll(ports *codecPorts, binary bool) {
	for n := range ports.outputs {
		r.outputs = append(r.outputs, wanted{n, binary})
	}
}

func portNames(ports []artifact.Port) string {
	var n []string
	for _, p := range ports {
		n = append(n, p.Name)
	}
	return listNames(n)
}

// tensorPort checks what a request says about a tensor against its port and returns the tensor without its elements, and
// their number. optional tells that it goes into an optional.
func tensorPort(p *artifact.Port, dt string, shape []int64) (t engine.Tensor, n int64, optional bool, err error) {
	port := p
	if p.Kind == "optional" && p.Elem != nil {
		port, optional = p.Elem, true
	}
	if port.Kind != "" && port.Kind != "tensor" {
		return t, 0, false, diag.Errorf("it is a %s, which the protocol cannot carry", port.Kind)
	}
	want := datatype(port)
	if dt != want {
		return t, 0, false, diag.Errorf("datatype %q, the model wants %s", dt, want)
	}
	d, _ := abi.ParseDType(port.DType)
	if info, ok := d.Info(); !ok || info.OIP == "" {
		return t, 0, false, diag.Errorf("the protocol has no datatype for %s", port.DType)
	}
	if len(shape) > abi.MaxRank {
		return t, 0, false, diag.Errorf("rank %d is more than %d", len(shape), abi.MaxRank)
	}
	if n, err = engine.Count(shape); err != nil {
		return t, 0, false, err
	}
	if shape == nil {
		shape = []int64{}
	}
	return engine.Tensor{DType: d, Shape: shape}, n, optional, nil
}

// whole puts t into an optional when its port is one.
func whole(t engine.Tensor, optional bool) engine.Tensor {
	if optional {
		return engine.Tensor{Kind: abi.Optional, DType: t.DType, Elems: []engine.Tensor{t}}
	}
	return t
}

func decodeTensor(p *artifact.Port, dt string, shape []int64, data json.RawMessage) (engine.Tensor, error) {
	t, n, optional, err := tensorPort(p, dt, shape)
	if err != nil {
		return t, err
	}
	// Every element takes at least a character and a comma: refuse before anything is allocated.
	if n > 0 && n > int64(len(data)) {
		return t, diag.Errorf("shape %s needs %d elements, there are fewer in data", engine.ShapeString(shape), n)
	}
	if len(data) == 0 {
		return t, errors.New("it has no data")
	}
	s := scanner{b: data, put: putFunc(t.DType, &t, n)}
	if err := s.data(t.Shape, n); err != nil {
		return t, err
	}
	return whole(t, optional), nil
}

// scanner walks the elements of a data array. Its bytes are valid JSON already: encoding/json has checked them.
type scanner struct {
	b   []byte
	i   int
	n   int64 // elements so far
	put func(tok []byte) error
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// data reads the whole array: flat, or nested exactly as the shape says.
func (s *scanner) data(shape []int64, count int64) error {
	if s.peek() != '[' {
		return errors.New("data is no array")
	}
	at := s.i
	s.i++
	nested := len(shape) > 1 && s.peek() == '['
	s.i = at
	if nested {
		return s.level(shape, 0)
	}
	return s.elements(count, -1, shape)
}

// level reads the array at depth d of a nested one.
func (s *scanner) level(shape []int64, d int) error {
	if s.peek() != '[' {
		return diag.Errorf("data is not nested as shape %s says: no array at depth %d", engine.ShapeString(shape), d+1)
	}
	if d == len(shape)-1 {
		return s.elements(shape[d], d, shape)
	}
	s.i++
	var k int64
	for ; s.peek() != ']'; k++ {
		if k >= shape[d] {
			return diag.Errorf("data has more than %d elements in dimension %d", shape[d], d)
		}
		if err := s.level(shape, d+1); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.i++
		}
	}
	s.i++
	if k != shape[d] {
		return diag.Errorf("data has %d elements in dimension %d, shape says %d", k, d, shape[d])
	}
	return nil
}

// elements reads an array of n scalars; d is its dimension, -1 when the array is flat.
func (s *scanner) elements(n int64, d int, shape []int64) error {
	s.i++
	var k int64
	for {
		c := s.peek()
		if c == ']' {
			s.i++
			break
		}
		if c == '[' || c == '{' || c == 0 {
			return diag.Errorf("data is not flat, and not nested as shape %s says", engine.ShapeString(shape))
		}
		if k++; k > n {
			s.token() // too many: only counted, for the message
		} else if err := s.put(s.token()); err != nil {
			return diag.Errorf("element %d: %w", s.n, err)
		}
		s.n++
		if s.peek() == ',' {
			s.i++
		}
	}
	if k == n {
		return nil
	}
	if d < 0 {
		return diag.Errorf("data has %d elements, shape %s needs %d", k, engine.ShapeString(shape), n)
	}
	return diag.Errorf("data has %d elements in dimension %d, shape says %d", k, d, n)
}

// token returns the next scalar's bytes.
func (s *scanner) token() []byte {
	s.peek()
	at := s.i
	if s.b[s.i] == '"' {
		for s.i++; s.i < len(s.b) && s.b[s.i] != '"'; s.i++ {
			if s.b[s.i] == '\\' {
				s.i++
			}
		}
		s.i++
		return s.b[at:min(s.i, len(s.b))]
	}
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return s.b[at:s.i]
		}
		s.i++
	}
	return s.b[at:]
}

// putFunc returns a function that appends one JSON scalar to t's data.
func putFunc(d abi.DType, t *engine.Tensor, n int64) func(tok []byte) error {
	le := binary.LittleEndian
	bits := d.Bits()
	switch d {
	case abi.String:
		t.Strings = make([]string, 0, n)
		return func(tok []byte) error {
			var s string
			if tok[0] != '"' {
				return diag.Errorf("%s is no string", tok)
			}
			if err := json.Unmarshal(tok, &s); err != nil {
				return err
			}
			t.Strings = append(t.Strings, s)
			return nil
		}
	case abi.Bool:
		t.Data = make([]byte, 0, n)
		return func(tok []byte) error {
			switch string(tok) {
			case "true", "1":
				t.Data = append(t.Data, 1)
			case "false", "0":
				t.Data = append(t.Data, 0)
			default:
				return diag.Errorf("%s is neither true nor false", tok)
			}
			return nil
		}
	}
	t.Data = make([]byte, 0, n*int64(bits)/8)
	var word func(tok []byte) (uint64, error)
	switch d {
	case abi.F32, abi.F64, abi.F16, abi.BF16:
		word = func(tok []byte) (uint64, error) { return floatBits(d, tok) }
	case abi.I8, abi.I16, abi.I32, abi.I64:
		word = func(tok []byte) (uint64, error) {
			v, err := strconv.ParseInt(string(tok), 10, bits)
			return uint64(v), numberError(tok, d, err)
		}
	default:
		word = func(tok []byte) (uint64, error) {
			v, err := strconv.ParseUint(string(tok), 10, bits)
			return v, numberError(tok, d, err)
		}
	}
	return func(tok []byte) error {
		v, err := word(tok)
		if err != nil {
			return err
		}
		switch bits {
		case 8:
			t.Data = append(t.Data, byte(v))
		case 16:
			t.Data = le.AppendUint16(t.Data, uint16(v))
		case 32:
			t.Data = le.AppendUint32(t.Data, uint32(v))
		default:
			t.Data = le.AppendUint64(t.Data, v)
		}
		return nil
	}
}

func numberError(tok []byte, d abi.DType, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, strconv.ErrRange):
		return diag.Errorf("%s is out of the range of %s", tok, d)
	}
	return diag.Errorf("%s is no value of %s", tok, d)
}

// floatBits parses a number. JSON has no NaN and no infinities: null and "NaN" mean NaN (a missing value), "Infinity"
// and "-Infinity" the others, as in the JSON form of protocol buffers.
func floatBits(d abi.DType, tok []byte) (uint64, error) {
	var v float64
	var err error
	size := 64
	if d == abi.F32 {
		size = 32
	}
	switch string(tok) {
	case "null", `"NaN"`:
		v = math.NaN()
	case `"Infinity"`:
		v = math.Inf(1)
	case `"-Infinity"`:
		v = math.Inf(-1)
	default:
		if tok[0] == '"' || tok[0] == 't' || tok[0] == 'f' {
			return 0, diag.Errorf("%s is no number", tok)
		}
		if v, err = strconv.ParseFloat(string(tok), size); err != nil {
			return 0, numberError(tok, d, err)
		}
	}
	switch d {
	case abi.F64:
		if v != v {
			return 0x7ff8000000000000, nil
		}
		return math.Float64bits(v), nil
	case abi.F32:
		if v != v {
			return 0x7fc00000, nil
		}
		return uint64(math.Float32bits(float32(v))), nil
	case abi.F16:
		h := toF16(v)
		if h&0x7fff == 0x7c00 && !math.IsInf(v, 0) {
			return 0, diag.Errorf("%s is out of the range of %s", tok, d)
		}
		return uint64(h), nil
	}
	return uint64(toBF16(float32(v))), nil
}
