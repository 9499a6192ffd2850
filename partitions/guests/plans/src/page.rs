//! Reads the schedule page, and holds each against the arithmetic and the one before.

use guest_rt::{Page, SchedulePage, Tally, tsc, window};

/// Reads pages and counts what is wrong with them.
pub struct Reader {
    page: Page,
    before: Option<SchedulePage>,
    /// What did not hold.
    pub faults: Tally,
}

impl Reader {
    /// Reads this page.
    pub const fn new(page: Page) -> Self {
        Self { page, before: None, faults: Tally::new() }
    }

    /// What the page says now.
    pub fn now(&mut self) -> SchedulePage {
        let page = self.page.read();
        let Some(before) = self.before.replace(page) else {
            return page;
        };
        if page.sequence != before.sequence {
            self.check_alone(&page);
            self.check_behind(&before, &page);
        }
        page
    }

    /// Waits until another window runs, and returns its page.
    pub fn next_window(&mut self) -> SchedulePage {
        let before = self.now().sequence;
        loop {
            let page = self.now();
            if page.sequence != before {
                return page;
            }
        }
    }

    fn check_alone(&mut self, page: &SchedulePage) {
        let now = tsc();
        let faults = &mut self.faults;
        let frame_start = page.epoch + page.frame * page.frame_length;
        faults.must(page.window_start >= frame_start, "window-before-its-frame");
        faults.must(page.window_end <= frame_start + page.frame_length, "window-behind-its-frame");
        faults.must(page.window_start < page.window_end, "window-without-length");
        faults.must(now >= page.window_start, "window-before-its-start");
        faults.must(page.next_start >= page.window_end, "next-window-before-the-end");
        faults
            .must(page.plan_from <= page.frame || page.next_plan != page.plan, "plan-not-in-force");
        if page.donated == 0 {
            self.check_call(page);
        }
    }

    /// The call says the same. It may be answered in a later window, of which the page then tells too.
    fn check_call(&mut self, page: &SchedulePage) {
        let Some(window) = window() else {
            self.faults.note("window-call-refused");
            return;
        };
        if self.page.read().sequence == page.sequence {
            let frame_start = page.epoch + page.frame * page.frame_length;
            let same = (window.epoch, window.frame) == (page.epoch, page.frame_length)
                && frame_start + window.start == page.window_start
                && page.window_start + window.length == page.window_end;
            self.faults.must(same, "page-and-call-differ");
        }
    }

    /// What was foretold is what came, as long as nobody asked for another plan meanwhile and no window was read over.
    fn check_behind(&mut self, before: &SchedulePage, page: &SchedulePage) {
        let faults = &mut self.faults;
        faults.must(page.sequence > before.sequence, "sequence-went-back");
        faults.must(page.frame >= before.frame, "frame-went-back");
        let followed = page.sequence == before.sequence + 2;
        let same_plans = page.plan == before.plan && page.plan_from == before.plan_from;
        if followed && same_plans && page.donated == 0 && before.donated == 0 {
            faults.must(page.window_start == before.next_start, "next-start-was-wrong");
            faults.must(page.window_end == before.next_end, "next-end-was-wrong");
        }
        // A later request may have taken the place of the one that was announced, but only once that one held.
        let announced = before.plan != before.next_plan;
        if announced && page.frame >= before.plan_from && page.plan_from == before.plan_from {
            faults.must(page.plan == before.next_plan, "plan-changed-late");
        }
        if announced && page.frame < before.plan_from {
            faults.must(page.plan == before.plan, "plan-changed-early");
        }
    }

    /// Windows were left out on purpose: the next page follows upon none.
    pub const fn skip(&mut self) {
        self.before = None;
    }
}
