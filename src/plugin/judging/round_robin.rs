//! Round-robin scheduling: components take turns, and so do the jobs of one component. So many jobs of one
//! component delay another by one turn. The caller chooses which job of a component gets the turn; it may
//! choose none for now.
//!
//! Must not know: what a job is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Jobs by component.
#[derive(Debug)]
pub struct RoundRobin<T> {
    /// Components with jobs, the next first, without the active one.
    order: VecDeque<Arc<str>>,
    jobs: HashMap<Arc<str>, VecDeque<T>>,
    active: Option<Arc<str>>,
}

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), jobs: HashMap::new(), active: None }
    }
}

impl<T> RoundRobin<T> {
    /// Adds a job of a component.
    pub fn push(&mut self, component: &Arc<str>, job: T) {
        let jobs = self.jobs.entry(Arc::clone(component)).or_default();
        jobs.push_back(job);
        if jobs.len() == 1 && self.active.as_ref() != Some(component) {
            self.order.push_back(Arc::clone(component));
        }
    }

    /// The next job: of the first component from which `choose` picks one. Call [`RoundRobin::end_turn`] when
    /// its turn is over, before the next call.
    pub fn pop(&mut self, choose: impl Fn(&VecDeque<T>) -> Option<usize>) -> Option<T> {
        let chosen = |(place, component)| Some((place, choose(self.jobs.get(component)?)?));
        let (place, at) = self.order.iter().enumerate().find_map(chosen)?;
        let component = self.order.remove(place)?;
        let jobs = self.jobs.get_mut(&component)?;
        let job = jobs.remove(at);
        if jobs.is_empty() {
            self.jobs.remove(&component);
        }
        self.active = Some(component);
        job
    }

    /// Ends the turn. Only now is the component queued again, behind those that arrived meanwhile. An
    /// unfinished job goes behind the other jobs of its component.
    pub fn end_turn(&mut self, unfinished: Option<T>) {
        let Some(component) = self.active.take() else { return };
        if let Some(job) = unfinished {
            self.jobs.entry(Arc::clone(&component)).or_default().push_back(job);
        }
        if self.jobs.contains_key(&component) {
            self.order.push_back(component);
        }
    }

    /// Whether a component other than the active one has a job that may be chosen.
    #[must_use]
    pub fn has_ready(&self, choose: impl Fn(&VecDeque<T>) -> Option<usize>) -> bool {
        self.order.iter().filter_map(|component| self.jobs.get(component)).any(|jobs| choose(jobs).is_some())
    }

    /// The waiting jobs, by component.
    pub fn waiting(&self) -> impl Iterator<Item = &VecDeque<T>> {
        self.jobs.values()
    }

    /// Removes and returns the jobs that `keep` rejects.
    pub fn remove_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for jobs in self.jobs.values_mut() {
            let (kept, rejected): (VecDeque<T>, VecDeque<T>) =
                std::mem::take(jobs).into_iter().partition(&keep);
            *jobs = kept;
            removed.extend(rejected);
        }
        self.jobs.retain(|_, jobs| !jobs.is_empty());
        self.order.retain(|component| self.jobs.contains_key(component));
        removed
    }

    /// Removes and returns all waiting jobs.
    pub fn drain(&mut self) -> Vec<T> {
        self.order.clear();
        self.jobs.drain().flat_map(|(_, jobs)| jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first<T>(_: &VecDeque<T>) -> Option<usize> {
        Some(0)
    }

    fn turn(jobs_by_turn: &mut RoundRobin<&'static str>) -> &'static str {
        let job = jobs_by_turn.pop(first).unwrap_or("none");
        jobs_by_turn.end_turn(None);
        job
    }

    #[test]
    fn many_jobs_of_one_delay_another_by_one_turn() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut jobs_by_turn = RoundRobin::default();
        ["a1", "a2", "a3"].into_iter().for_each(|job| jobs_by_turn.push(&a, job));
        assert_eq!(jobs_by_turn.pop(first), Some("a1"));
        jobs_by_turn.push(&b, "b1");
        assert!(jobs_by_turn.has_ready(first));
        jobs_by_turn.end_turn(Some("a1 again"));
        assert_eq!([(); 5].map(|()| turn(&mut jobs_by_turn)), ["b1", "a2", "a3", "a1 again", "none"]);
        assert!(!jobs_by_turn.has_ready(first) && jobs_by_turn.jobs.is_empty());
    }

    #[test]
    fn components_take_turns() {
        let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        let mut jobs_by_turn = RoundRobin::default();
        for (name, jobs) in names.iter().zip([["a1", "a2"], ["b1", "b2"], ["c1", "c2"]]) {
            jobs.into_iter().for_each(|job| jobs_by_turn.push(name, job));
        }
        assert_eq!([(); 6].map(|()| turn(&mut jobs_by_turn)), ["a1", "b1", "c1", "a2", "b2", "c2"]);
    }

    #[test]
    fn a_job_that_arrives_during_its_components_turn_waits() {
        let a: Arc<str> = "a".into();
        let mut jobs_by_turn = RoundRobin::default();
        jobs_by_turn.push(&a, "a1");
        assert_eq!(jobs_by_turn.pop(first), Some("a1"));
        jobs_by_turn.push(&a, "a2");
        assert!(!jobs_by_turn.has_ready(first), "it belongs to the active component");
        jobs_by_turn.end_turn(None);
        assert_eq!(turn(&mut jobs_by_turn), "a2");
        jobs_by_turn.push(&a, "a3");
        assert_eq!(jobs_by_turn.drain(), ["a3"]);
        assert!(!jobs_by_turn.has_ready(first));
    }

    #[test]
    fn a_held_job_blocks_no_other() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut jobs_by_turn = RoundRobin::default();
        ["held", "held too", "free"].into_iter().for_each(|job| jobs_by_turn.push(&a, job));
        jobs_by_turn.push(&b, "held b");
        let free = |jobs: &VecDeque<&str>| jobs.iter().position(|job| *job == "free");
        assert!(jobs_by_turn.has_ready(free));
        assert_eq!(jobs_by_turn.pop(free), Some("free"));
        assert!(!jobs_by_turn.has_ready(free));
        jobs_by_turn.end_turn(Some("free"));
        assert_eq!(jobs_by_turn.remove_unless(|job| *job != "held b"), ["held b"]);
        assert_eq!((jobs_by_turn.pop(free), jobs_by_turn.pop(free)), (Some("free"), None));
        jobs_by_turn.end_turn(None);
        assert_eq!([(); 3].map(|()| turn(&mut jobs_by_turn)), ["held", "held too", "none"]);
    }
}
