//! The memory of a batch: messages in the kernel's form, permanently linked to their buffers.
//!
//! Edge. Owns memory, and makes no system call.

use std::mem;
use std::ptr::{self, NonNull};
use std::slice;

use super::BATCH;
use super::ends::Control;

/// [`BATCH`] messages. Each leads to a buffer of its own, and to a name and a control buffer if
/// requested.
///
/// The messages hold pointers into this memory, also between calls. That is allowed because only
/// the two pointers here own the memory. They came from its allocations, and every pointer in a
/// message is derived from them. A reference covers one element at a time, for as long as its
/// method's borrow of `self` lasts. No reference or box ever covers a whole block, so none can
/// invalidate the pointers that lead into it (Stacked Borrows, Tree Borrows).
pub(super) struct Slots {
    links: NonNull<Links>,
    /// [`BATCH`] buffers, one after the other.
    bytes: NonNull<u8>,
    /// Bytes of each buffer.
    room: usize,
}

struct Links {
    headers: [libc::mmsghdr; BATCH],
    vectors: [libc::iovec; BATCH],
    names: [libc::sockaddr_storage; BATCH],
    controls: [Control; BATCH],
}

// SAFETY: the pointers are owned, and lead only to owned memory, so the value can be sent to
// another thread like a box.
unsafe impl Send for Slots {}

impl Slots {
    /// Returns messages with buffers of `room` bytes, without names and control buffers.
    pub fn new(room: usize) -> Self {
        // SAFETY: all zeros is a valid value of every field: integers, byte arrays, null pointers.
        let links: Box<Links> = Box::new(unsafe { mem::zeroed() });
        let bytes: Box<[u8]> = vec![0; BATCH * room].into();
        let links = NonNull::from(Box::leak(links));
        let bytes = NonNull::from(Box::leak(bytes)).cast();
        let mut slots = Self { links, bytes, room };
        for index in 0..BATCH {
            let iov_base = slots.bytes(index).cast();
            // SAFETY: `links` is valid, and there is no other reference to this vector.
            let vector = unsafe { &raw mut (*links.as_ptr()).vectors[index] };
            *slots.vector(index) = libc::iovec { iov_base, iov_len: room };
            let header = &mut slots.headers()[index].msg_hdr;
            (header.msg_iov, header.msg_iovlen) = (vector, 1);
        }
        slots
    }

    /// Returns the bytes of each buffer.
    #[inline]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Returns the messages.
    #[inline]
    pub fn headers(&mut self) -> &mut [libc::mmsghdr; BATCH] {
        // SAFETY: `links` is valid, and there is no other reference to its headers while `self` is
        // borrowed.
        unsafe { &mut (*self.links.as_ptr()).headers }
    }

    /// Returns message `index`.
    #[inline]
    pub fn header(&self, index: usize) -> &libc::mmsghdr {
        // SAFETY: as for `headers`; no method writes while `self` is borrowed.
        unsafe { &(*self.links.as_ptr()).headers[index] }
    }

    /// Returns the address that the kernel wrote for message `index`.
    #[inline]
    pub fn name(&self, index: usize) -> &libc::sockaddr_storage {
        // SAFETY: as for `header`.
        unsafe { &(*self.links.as_ptr()).names[index] }
    }

    /// Links message `index` to its name, and lets `write` fill it; `write` returns its length.
    #[inline]
    pub fn set_name(
        &mut self,
        index: usize,
        write: impl FnOnce(&mut libc::sockaddr_storage) -> u32,
    ) {
        // SAFETY: `links` is valid, and there is no other reference to this name while `self` is
        // borrowed.
        let (len, name) = unsafe {
            let name = &raw mut (*self.links.as_ptr()).names[index];
            (write(&mut *name), name)
        };
        let header = &mut self.headers()[index].msg_hdr;
        (header.msg_name, header.msg_namelen) = (name.cast(), len);
    }

    /// Removes the name from message `index`.
    #[inline]
    pub fn unlink_name(&mut self, index: usize) {
        let header = &mut self.headers()[index].msg_hdr;
        (header.msg_name, header.msg_namelen) = (ptr::null_mut(), 0);
    }

    /// Removes the control buffer from message `index`.
    #[inline]
    pub fn unlink_control(&mut self, index: usize) {
        let header = &mut self.headers()[index].msg_hdr;
        (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
    }

    /// Links message `index` to its control buffer, and lets `write` fill it; `write` returns its
    /// length.
    #[inline]
    pub fn set_control(&mut self, index: usize, write: impl FnOnce(&mut Control) -> usize) {
        // SAFETY: `links` is valid, and there is no other reference to this buffer while `self` is
        // borrowed.
        let (len, control) = unsafe {
            let control = &raw mut (*self.links.as_ptr()).controls[index];
            (write(&mut *control), control)
        };
        let header = &mut self.headers()[index].msg_hdr;
        (header.msg_control, header.msg_controllen) = (control.cast(), len as _);
    }

    /// Sets how many bytes of buffer `index` the kernel can use, at most all of them.
    #[inline]
    pub fn set_len(&mut self, index: usize, len: usize) {
        self.vector(index).iov_len = len.min(self.room);
    }

    /// Returns the part of buffer `index` that the kernel uses.
    #[inline]
    pub fn vector(&mut self, index: usize) -> &mut libc::iovec {
        // SAFETY: as for `headers`.
        unsafe { &mut (*self.links.as_ptr()).vectors[index] }
    }

    /// Returns the start of buffer `index`.
    #[inline]
    fn bytes(&self, index: usize) -> *mut u8 {
        assert!(index < BATCH, "buffer {index} of {BATCH}");
        // SAFETY: there are BATCH buffers of `room` bytes.
        unsafe { self.bytes.as_ptr().add(index * self.room) }
    }

    /// Returns the first `len` bytes of buffer `index`, at most all of them.
    #[inline]
    pub fn buffer(&self, index: usize, len: usize) -> &[u8] {
        // SAFETY: the buffer has this many bytes, which are always initialized, at first with
        // zeros; no method writes while `self` is borrowed.
        unsafe { slice::from_raw_parts(self.bytes(index), len.min(self.room)) }
    }

    /// Returns buffer `index`.
    #[inline]
    pub fn buffer_mut(&mut self, index: usize) -> &mut [u8] {
        // SAFETY: as for `buffer`; there is no other reference to the buffer while `self` is
        // borrowed.
        unsafe { slice::from_raw_parts_mut(self.bytes(index), self.room) }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let bytes = ptr::slice_from_raw_parts_mut(self.bytes.as_ptr(), BATCH * self.room);
        // SAFETY: both were leaked from boxes of these types and lengths in `new`.
        unsafe {
            drop(Box::from_raw(self.links.as_ptr()));
            drop(Box::from_raw(bytes));
        }
    }
}
