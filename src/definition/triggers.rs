//! The triggers that we put on each table a document depends on.
//!
//! Invariant: this list is what attach() makes, what is looked for afterwards, and what detach() drops. A trigger
//! that is not just as it says here is no trigger of ours.

/// One of our triggers on a used table.
pub struct Trigger {
    pub name: &'static str,
    /// Timing and events, and level, as CREATE TRIGGER has them.
    pub when: &'static str,
    pub level: &'static str,
    /// Names of the transition tables; empty for none.
    pub old_table: &'static str,
    pub new_table: &'static str,
    /// Its function in schema profile_cache.
    pub function: &'static str,
    /// `pg_trigger.tgtype` of it: ROW 1, BEFORE 2, INSERT 4, DELETE 8, UPDATE 16, TRUNCATE 32.
    pub tgtype: i16,
}

/// pg_repack's own, for as long as it copies a table: a row trigger that tells of the app's writes, and so not of what we write
/// ourselves.
pub const COPYING: &str = "repack_trigger";

/// Keeps the four columns and takes trust away. Sorts behind ordinary names, so that it sees what
/// other BEFORE triggers have made of the row.
pub static DISTRUST: Trigger = Trigger {
    name: "zz_profile_cache_distrust",
    when: "BEFORE INSERT OR UPDATE",
    level: "ROW",
    old_table: "",
    new_table: "",
    function: "distrust",
    tgtype: 1 + 2 + 4 + 16,
};

const fn after(
    name: &'static str,
    when: &'static str,
    tgtype: i16,
    old_table: &'static str,
    new_table: &'static str,
) -> Trigger {
    let (level, function) = ("STATEMENT", "after_statement");
    Trigger { name, when, level, old_table, new_table, function, tgtype }
}

/// The statement triggers of every used table.
pub static STATEMENT_TRIGGERS: [Trigger; 5] = [
    Trigger {
        name: "profile_cache_before",
        when: "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE",
        level: "STATEMENT",
        old_table: "",
        new_table: "",
        function: "before_statement",
        tgtype: 2 + 4 + 8 + 16 + 32,
    },
    after("profile_cache_insert", "AFTER INSERT", 4, "", "new_rows"),
    after("profile_cache_update", "AFTER UPDATE", 16, "old_rows", "new_rows"),
    after("profile_cache_delete", "AFTER DELETE", 8, "old_rows", ""),
    after("profile_cache_truncate", "AFTER TRUNCATE", 32, "", ""),
];

/// The triggers that a used table must have.
pub fn triggers(is_profile: bool) -> impl Iterator<Item = &'static Trigger> {
    STATEMENT_TRIGGERS.iter().chain(is_profile.then_some(&DISTRUST))
}

impl Trigger {
    /// The statement that makes it on `table`, a quoted name.
    pub fn create(&self, table: &str) -> String {
        let mut transitions = String::new();
        for (kind, name) in [("OLD", self.old_table), ("NEW", self.new_table)] {
            if !name.is_empty() {
                transitions.push_str(&format!(" {kind} TABLE AS {name}"));
            }
        }
        if !transitions.is_empty() {
            transitions = format!(" REFERENCING{transitions}");
        }
        format!(
            "CREATE OR REPLACE TRIGGER {} {} ON {table}{transitions} FOR EACH {} \
             EXECUTE FUNCTION profile_cache.{}()",
            self.name, self.when, self.level, self.function
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_says_all_that_it_is() {
        assert_eq!(
            STATEMENT_TRIGGERS[2].create("t"),
            "CREATE OR REPLACE TRIGGER profile_cache_update AFTER UPDATE ON t \
             REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT \
             EXECUTE FUNCTION profile_cache.after_statement()"
        );
        assert_eq!(triggers(true).count(), 6);
    }
}
