package control

// Phases of a running agent, in the words of agent.Status.AgentState.
const (
	Starting = "starting"
	Running  = "running"
	Stopping = "stopping"
)

// What the state on disk says of an agent that was not asked.
const (
	Down   = "down"
	Silent = "silent"
	Busy   = "busy"
)

const JournalVerified = "verified"
