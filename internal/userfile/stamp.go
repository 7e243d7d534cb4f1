package userfile

import (
	"io/fs"
	"os"
	"time"
)

// Stamp tells one state of a file from the next without reading it: by its
// inode, size and time of change. The zero Stamp is of no file.
type Stamp struct {
	info fs.FileInfo
	// young says that the file was changed so short a time before it was looked at
	// that another change may have left it with the same time.
	young bool
}

// coarsest is the step in which the coarsest of today's file systems counts time:
// two seconds, FAT's.
const coarsest = 2 * time.Second

// Look returns the present Stamp of a file, following links. It opens nothing.
func Look(path string) (Stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Stamp{}, err
	}
	return newStamp(info), nil
}

func stampOf(f *os.File) (Stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return Stamp{}, err
	}
	return newStamp(info), nil
}

func newStamp(info fs.FileInfo) Stamp {
	return Stamp{info: info, young: time.Since(info.ModTime()) < coarsest}
}

// Alike says whether the file looked the same at both times, or was missing both
// times. What Same adds is certainty.
func (s Stamp) Alike(now Stamp) bool {
	if s.info == nil || now.info == nil {
		return s.info == nil && now.info == nil
	}
	return os.SameFile(s.info, now.info) && s.info.Size() == now.info.Size() && s.info.ModTime().Equal(now.info.ModTime())
}

// Same says whether the file that now has the Stamp has certainly not changed since
// s. For a Stamp that was taken within two seconds of a change it is false although
// nothing may have happened: a caller that then reads the same content again keeps
// what it made of the content, and the new Stamp.
func (s Stamp) Same(now Stamp) bool {
	return s.info != nil && now.info != nil && !s.young && s.Alike(now)
}
