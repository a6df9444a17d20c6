//! The rule of reading: whether a stored document may be served.
//!
//! Invariant: pure. What it looks at is handed in: one row's columns, and what one snapshot shows as pending. Where
//! something is missing or is not known, the document is not served.
//!
//! Rules: E5, R1, R2, R3, R5.

use std::collections::HashSet;
use std::rc::Rc;

/// A change that may touch many profiles.
#[derive(Debug)]
pub struct PendingEpoch {
    pub epoch: Option<i64>,
    /// What leads to those that it concerns; None where it concerns all.
    pub change: Option<Rc<LinkChange>>,
}

/// Rows that have changed, by the values of theirs that lead to profiles.
#[derive(Debug)]
pub struct LinkChange {
    /// In which ways: the numbers of a table and of a link of its.
    pub links: Vec<(usize, usize)>,
    pub values: HashSet<String>,
}

/// What is asked of a snapshot only where it matters.
pub trait Beside {
    /// Row versions of an older xmin have been through a complete pass of this epoch.
    fn passed_xmin(&self, epoch: i64) -> Option<u64>;
    /// Whether the change leads to the profile whose row is judged, or may.
    fn leads(&self, change: &LinkChange) -> bool;
}

/// What is pending, as one snapshot shows it.
#[derive(Default, Debug)]
pub struct Pending {
    pub current: Option<i64>,
    pub epochs: Vec<PendingEpoch>,
    /// There are more than a read should look at: what it does not see may concern any profile.
    pub overflow: bool,
}

/// What the reader's rule looks at in a profile's row.
#[derive(Clone, Debug, Default)]
pub struct CachedRow {
    pub epoch: Option<i64>,
    pub valid_until: Option<i64>,
    pub updated_at: Option<i64>,
    pub xmin: u32,
    /// A pending key names the row.
    pub named: bool,
    pub key: Option<[u8; 16]>,
}

/// Why a stored document is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// `profile_cache.enabled` is off.
    Disabled,
    /// A trigger of ours does not fire, or the attachment has a problem.
    Unhealthy,
    /// This transaction has changed something that it has not computed yet.
    Unsettled,
    /// Not stored, or distrusted.
    Null,
    /// Stamped by another attachment, or under another definition.
    OtherAttachment,
    Expired,
    /// Computed by a transaction that began after this one.
    Future,
    /// A change is pending that may concern it.
    Pending,
    /// The same, and refresh is about to follow it: what is computed now would be trusted.
    InPass,
}

impl Miss {
    pub fn name(self) -> &'static str {
        match self {
            Miss::Disabled => "disabled",
            Miss::Unhealthy => "unhealthy",
            Miss::Unsettled => "changed in this transaction",
            Miss::Null => "not cached",
            Miss::OtherAttachment => "other attachment",
            Miss::Expired => "expired",
            Miss::Future => "from the future",
            Miss::Pending | Miss::InPass => "pending",
        }
    }
}

impl Pending {
    /// Whether a stored document may be served, of what is pending here; or why not. `first`: the first epoch that is
    /// trusted, if any. `now`: the reader's, in PostgreSQL's microseconds. `next_xid`: no transaction has that id or a
    /// greater one.
    pub fn judge(
        &self,
        l: &CachedRow,
        first: Option<i64>,
        now: i64,
        next_xid: u64,
        beside: &impl Beside,
    ) -> Result<(), Miss> {
        let Some(stamp) = l.epoch else {
            return Err(Miss::Null);
        };
        let Some(first) = first.filter(|_| !self.overflow) else {
            return Err(Miss::Pending);
        };
        if stamp < first || self.current.is_none_or(|current| stamp > current) {
            return Err(Miss::OtherAttachment);
        }
        if l.valid_until.is_some_and(|until| until <= now) {
            return Err(Miss::Expired);
        }
        if l.updated_at.is_none_or(|at| at > now) {
            return Err(Miss::Future);
        }
        let unseen = |e: &PendingEpoch| e.epoch.is_none_or(|epoch| epoch > stamp);
        let leads = |e: &PendingEpoch| e.change.as_ref().is_none_or(|change| beside.leads(change));
        let passed = |e: &PendingEpoch| {
            let to = e.epoch.and_then(|epoch| beside.passed_xmin(epoch));
            to.is_some_and(|to| full_xid(l.xmin, next_xid) < to)
        };
        if l.named {
            return Err(Miss::Pending);
        }
        let concern = |e: &&PendingEpoch| unseen(e) && leads(e) && !passed(e);
        match self.epochs.iter().find(concern) {
            None => Ok(()),
            Some(PendingEpoch { epoch: None, .. }) => Err(Miss::Pending),
            Some(_) => Err(Miss::InPass),
        }
    }
}

/// The full transaction id of a row version's xmin: the greatest one below `next` with these low
/// bits. A frozen version's true id may be older still, never newer, so "older than" stays true of
/// it. Ids under 3 are not transactions: counted as the newest.
pub fn full_xid(xmin: u32, next: u64) -> u64 {
    if xmin < 3 {
        return u64::MAX;
    }
    let candidate = (next & !0xffff_ffff) | u64::from(xmin);
    if candidate < next { candidate } else { candidate.saturating_sub(1 << 32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: CachedRow = CachedRow {
        epoch: Some(10),
        valid_until: None,
        updated_at: Some(5),
        xmin: 100,
        named: false,
        key: None,
    };

    fn pending(epochs: &[Option<i64>]) -> Pending {
        let epochs = epochs.iter().map(|&epoch| PendingEpoch { epoch, change: None });
        Pending { current: Some(12), epochs: epochs.collect(), ..Pending::default() }
    }

    struct Told {
        passed: Option<u64>,
        leads: bool,
    }

    impl Beside for Told {
        fn passed_xmin(&self, _: i64) -> Option<u64> {
            self.passed
        }
        fn leads(&self, _: &LinkChange) -> bool {
            self.leads
        }
    }

    const NOT_PASSED: Told = Told { passed: None, leads: true };

    fn judge(p: &Pending, l: &CachedRow) -> Result<(), Miss> {
        p.judge(l, Some(8), 50, 1000, &NOT_PASSED)
    }

    #[test]
    fn a_stamp_counts_only_within_the_attachment_s_epochs() {
        let p = pending(&[]);
        assert_eq!(judge(&p, &OK), Ok(()));
        for (epoch, miss) in [
            (None, Miss::Null),
            (Some(7), Miss::OtherAttachment),
            (Some(13), Miss::OtherAttachment),
        ] {
            assert_eq!(judge(&p, &CachedRow { epoch, ..OK }), Err(miss));
        }
        for epoch in [Some(8), Some(12)] {
            assert_eq!(judge(&p, &CachedRow { epoch, ..OK }), Ok(()));
        }
        assert_eq!(judge(&Pending::default(), &OK), Err(Miss::OtherAttachment));
        assert_eq!(p.judge(&OK, Some(11), 50, 1000, &NOT_PASSED), Err(Miss::OtherAttachment));
    }

    #[test]
    fn time_is_the_reader_s_now() {
        let p = pending(&[]);
        assert_eq!(judge(&p, &CachedRow { valid_until: Some(50), ..OK }), Err(Miss::Expired));
        assert_eq!(judge(&p, &CachedRow { valid_until: Some(51), ..OK }), Ok(()));
        assert_eq!(judge(&p, &CachedRow { updated_at: Some(51), ..OK }), Err(Miss::Future));
        assert_eq!(judge(&p, &CachedRow { updated_at: Some(50), ..OK }), Ok(()));
    }

    #[test]
    fn a_pending_epoch_concerns_older_stamps_until_a_pass_has_seen_the_row() {
        let with = |epoch, passed| {
            pending(&[epoch]).judge(&OK, Some(8), 50, 1000, &Told { passed, leads: true })
        };
        assert_eq!(with(None, None), Err(Miss::Pending));
        // Without a number it has had no pass.
        assert_eq!(with(None, Some(101)), Err(Miss::Pending));
        assert_eq!(with(Some(11), None), Err(Miss::InPass));
        assert_eq!(with(Some(10), None), Ok(()));
        assert_eq!(with(Some(11), Some(101)), Ok(()));
        assert_eq!(with(Some(11), Some(100)), Err(Miss::InPass));
        assert_eq!(judge(&pending(&[]), &CachedRow { named: true, ..OK }), Err(Miss::Pending));
    }

    #[test]
    fn a_change_concerns_those_to_whom_it_leads() {
        for (epoch, miss) in [(None, Miss::Pending), (Some(11), Miss::InPass)] {
            let mut p = pending(&[epoch]);
            let told = |leads| Told { passed: None, leads };
            let values = HashSet::from(["1".to_owned()]);
            p.epochs[0].change = Some(Rc::new(LinkChange { links: vec![(0, 0)], values }));
            assert_eq!(p.judge(&OK, Some(8), 50, 1000, &told(false)), Ok(()));
            assert_eq!(p.judge(&OK, Some(8), 50, 1000, &told(true)), Err(miss));
            // Another that names nothing concerns everybody.
            p.epochs.push(PendingEpoch { epoch, change: None });
            assert_eq!(p.judge(&OK, Some(8), 50, 1000, &told(false)), Err(miss));
        }
    }

    #[test]
    fn what_is_not_looked_at_may_concern_anyone() {
        let p = Pending { overflow: true, ..pending(&[]) };
        assert_eq!(judge(&p, &OK), Err(Miss::Pending));
    }

    #[test]
    fn an_xmin_is_widened_to_the_newest_id_it_can_be() {
        assert_eq!(full_xid(100, 1000), 100);
        assert_eq!(full_xid(999, 1000), 999);
        assert_eq!(full_xid(100, (7 << 32) + 1000), (7 << 32) + 100);
        // Its low bits are beyond those of the next id: it is from the epoch before.
        assert_eq!(full_xid(2000, (7 << 32) + 1000), (6 << 32) + 2000);
        assert_eq!(full_xid(1000, (7 << 32) + 1000), (6 << 32) + 1000);
        // Ids of transactions begin at 3.
        assert_eq!(full_xid(2, 1000), u64::MAX);
        assert_eq!(full_xid(3, 1000), 3);
    }
}
