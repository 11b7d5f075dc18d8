package fsx

import "os"

// Identity tells whether a file is still the one it was: another file under the name, another size, a write or a change
// of times shows in it. It does not vouch for the content: writes within one tick of the file system's clock, or
// through a disk's back door, leave it as it is. What the platform does not have is 0.
type Identity struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	Mod    int64  `json:"mtimeNs"` // ns since 1970
	Change int64  `json:"ctimeNs"` // ns since 1970; of the inode, which no user can set
}

// Identify takes the identity of an open file.
func Identify(f File) (Identity, error) {
	fi, err := f.Stat()
	if err != nil {
		return Identity{}, err
	}
	id := Identity{Size: fi.Size(), Mod: fi.ModTime().UnixNano()}
	if o, ok := f.(*os.File); ok {
		err = identify(o, &id)
	}
	return id, err
}
