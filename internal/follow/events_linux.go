package follow

import (
	"slices"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// events tell that something has happened in a folder, and no more than that. The
// zero events tell nothing.
type events struct {
	c       chan struct{} // of capacity 1
	watcher *fsnotify.Watcher
	done    chan struct{}
}

// newEvents tell nothing where the user has used up the system's inotify instances.
func newEvents() events {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return events{}
	}
	e := events{c: make(chan struct{}, 1), watcher: w, done: make(chan struct{})}
	go e.pass()
	return e
}

// pass takes what the watcher says, which waits for nobody else. An error of the
// watcher's is a queue that ran over: something has happened, too.
func (e events) pass() {
	defer close(e.done)
	for {
		var open bool
		select {
		case _, open = <-e.watcher.Events:
		case _, open = <-e.watcher.Errors:
		}
		if !open {
			return
		}
		select {
		case e.c <- struct{}{}:
		default:
		}
	}
}

func (e events) close() {
	if e.watcher != nil {
		_ = e.watcher.Close() // there is nothing to be done about it
		<-e.done
	}
}

// watch makes the folders those of which events come, and says whether they come of
// all.
func (e events) watch(folders map[string]bool) bool {
	if e.watcher == nil {
		return false
	}
	all := true
	watched := e.watcher.WatchList()
	for _, folder := range watched {
		if !folders[folder] {
			_ = e.watcher.Remove(folder) // it may just have gone
		}
	}
	for folder := range folders {
		if !local(folder) {
			all = false
			continue
		}
		if !slices.Contains(watched, folder) && e.watcher.Add(folder) != nil {
			all = false
		}
	}
	return all
}

// local says whether the kernel tells of all that happens in a folder. On a file
// system that others write to as well, it does not.
func local(folder string) bool {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return false
	}
	switch uint32(s.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, zfs:
		return true
	}
	return false
}

// zfs is not among the constants, since ZFS is not among the kernel's file systems.
const zfs = 0x2fc12fc1
