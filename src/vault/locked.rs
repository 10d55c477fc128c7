//! Memory for keys that live as long as the process: a page of its own that is never swapped and never part of a core dump.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use zeroize::Zeroize;

/// No key set is larger. The smallest page of any system that this runs on.
const ROOM_BYTES: usize = 4096;

/// A value in a page of its own, wiped on drop. Locking is best effort (`ulimit -l` may forbid it, and `voicepay doctor` says so); leaving
/// the page out of core dumps is not refused to anybody.
pub(super) struct Locked<T: Zeroize> {
    page: NonNull<T>,
}

impl<T: Zeroize> Locked<T> {
    /// Moves a value there and wipes where it was.
    #[allow(unsafe_code)] // the page comes from libc
    pub(super) fn new(mut value: T) -> Self
    where
        T: Copy,
    {
        const { assert!(size_of::<T>() <= ROOM_BYTES && align_of::<T>() <= ROOM_BYTES && !std::mem::needs_drop::<T>()) };
        // SAFETY: an anonymous private mapping touches no memory of ours.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                ROOM_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let Some(room) = NonNull::new(page).filter(|_| page != libc::MAP_FAILED) else {
            // Not one page left: the next allocation of anything would end the process as well.
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<T>());
        };
        // SAFETY: the mapping is ROOM_BYTES long and ours alone; both calls only set its properties.
        unsafe {
            let _may_be_forbidden = libc::mlock(room.as_ptr(), ROOM_BYTES);
            #[cfg(target_os = "linux")]
            let _old_kernels_do_not_know_it = libc::madvise(room.as_ptr(), ROOM_BYTES, libc::MADV_DONTDUMP);
        }
        let page = room.cast::<T>();
        // SAFETY: fresh, page-aligned, and large enough by the assertion above.
        unsafe { page.write(value) };
        value.zeroize();
        Self { page }
    }
}

impl<T: Zeroize> Deref for Locked<T> {
    type Target = T;

    #[allow(unsafe_code)] // as above
    fn deref(&self) -> &T {
        // SAFETY: written by `new`, freed by `drop` only.
        unsafe { self.page.as_ref() }
    }
}

impl<T: Zeroize> Drop for Locked<T> {
    #[allow(unsafe_code)] // as above
    fn drop(&mut self) {
        // SAFETY: the last use of a page that `new` mapped.
        unsafe {
            self.page.as_mut().zeroize();
            libc::munmap(self.page.as_ptr().cast(), ROOM_BYTES);
        }
    }
}

// SAFETY: it owns its page, and lends it for reading only.
#[allow(unsafe_code)]
unsafe impl<T: Zeroize + Send> Send for Locked<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Zeroize + Sync> Sync for Locked<T> {}

impl<T: Zeroize> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_key_lies_in_a_page_that_no_dump_has() {
        let key = Locked::new([7u8; 32]);
        assert_eq!(*key, [7; 32]);
        assert_eq!(format!("{key:?}"), "Locked(…)");
        let address = format!("{:x}", key.page.as_ptr().addr());
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let flags = maps.lines().skip_while(|l| !within(l, &address)).find(|l| l.starts_with("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|f| f == "dd"), "{flags}");
    }

    /// Whether a line of `smaps` begins the mapping that holds this address.
    fn within(line: &str, address: &str) -> bool {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let range = line.split_whitespace().next().and_then(|r| r.split_once('-'));
        let ends = range.and_then(|(from, to)| Some((number(from)?, number(to)?)));
        ends.is_some_and(|(from, to)| (from..to).contains(&number(address).unwrap()))
    }
}
