//! A static that exactly one core uses.
#![expect(
    unsafe_code,
    reason = "hands out exclusive references to statics by a rule, not by a lock"
)]

use core::cell::UnsafeCell;

/// Storage for one core's exclusive use (or one vCPU's, which never leaves its core).
#[repr(transparent)]
pub struct CoreCell<T>(UnsafeCell<T>);

// SAFETY: `get` demands that only one core reaches in, so no reference is ever shared between cores.
unsafe impl<T> Sync for CoreCell<T> {}

impl<T> CoreCell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The content.
    ///
    /// # Safety
    /// Only the core that owns the content calls this, and it keeps no other reference to it alive. Once the owner is
    /// parked (`module::park`), the core that saw it parked may call it instead.
    #[expect(clippy::mut_from_ref, reason = "the contract above replaces the borrow checker")]
    pub unsafe fn get(&self) -> &mut T {
        // SAFETY: the caller's contract is exactly exclusivity.
        unsafe { &mut *self.0.get() }
    }

    /// Where the content lies.
    pub const fn address(&self) -> *mut T {
        self.0.get()
    }
}
