package devicekey

import "fmt"

// journalPurpose keeps a signature under a checkpoint from passing for anything else.
const journalPurpose = "journal"

// Journal signs and checks the checkpoints of a device's journal with its key.
type Journal struct{ Key *Key }

// ID is the device.
func (j Journal) ID() string { return j.Key.KeyID() }

// Sign signs the message of a checkpoint.
func (j Journal) Sign(m []byte) ([]byte, error) { return j.Key.SignRaw(journalPurpose, m) }

// Check is nil for a signature of this device over message.
func (j Journal) Check(device string, message, signature []byte) error {
	if device != j.Key.KeyID() {
		return fmt.Errorf("signed by device %.12s, this is device %.12s", device, j.Key.KeyID())
	}
	pub, err := j.Key.Public()
	if err != nil {
		return err
	}
	return VerifyRaw(pub, journalPurpose, message, signature)
}
