package plan

// Map is a plan for people: which value lies where, and when. Offsets count from the beginning of the arena.
type Map struct {
	Size  int64 `json:"bytes"` // of the arena's planned part
	Bound int64 `json:"bound"` // greatest sum of what is in use at one step; no plan is smaller
	Peak  int   `json:"peak"`  // first such step
	// Exact says that nothing comes from elsewhere: Size bytes serve every call.
	Exact  bool    `json:"exact"`
	Values []Value `json:"values"`
	// Loose names what comes from the heap behind the planned part.
	Loose []string `json:"heap"`
	// Steps names the node that each step of the program works for.
	Steps []string `json:"steps"`
}

// Value is a value or scratch of a node.
type Value struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Turns  int    `json:"turns"`          // places next to each other that it takes in turn, in a loop
	Live   []Span `json:"live"`           // steps, empty when no step needs it
	Over   string `json:"over,omitempty"` // the value whose memory it takes over in place
}
