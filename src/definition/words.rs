//! What follows from a link, in words for people.
//!
//! Pure. Invariant: each of a route's columns is named with its table, so that the words can be read as joins.

use super::{ANY_VALUE, Definition, Link, Step, Table, display, display_identifier, quote_literal};

impl Definition {
    /// From the table's changed row to the profiles, as `a.x = b.y → b.z = c.w`.
    pub fn route_in_words(&self, table: &Table, link: &Link) -> String {
        let own = display(&table.schema, &table.name);
        let start = columns(&own, &link.column_names());
        let [value] = &link.everyone[..] else {
            return self.steps_in_words(table, &start, link);
        };
        if link.is_whole() || value == ANY_VALUE {
            return format!("{own} → every profile");
        }
        format!("{start} = {} → every profile", quote_literal(value))
    }

    fn steps_in_words(&self, table: &Table, start: &str, link: &Link) -> String {
        let profile = self.tables.first().map_or_else(String::new, |t| display(&t.schema, &t.name));
        if link.member && self.tables.first() == Some(table) {
            return format!("{profile} itself");
        }
        let name = |step: &Step| match &step.table[..] {
            "" => profile.clone(),
            table => display(&step.schema, table),
        };
        let mut from = start.to_owned();
        let steps = link.route.iter().map(|step| {
            let table = name(step);
            let words = format!("{from} = {}", columns(&table, &step.column_names()));
            from = columns(&table, &step.next);
            words
        });
        steps.collect::<Vec<_>>().join(" → ")
    }
}

fn columns(table: &str, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| display_identifier(n)).collect();
    match &names[..] {
        [one] => format!("{table}.{one}"),
        several => format!("{table} ({})", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkColumn, StepColumn, UUID};
    use super::*;

    fn link(names: &[&str], member: bool, everyone: &[&str], route: Vec<Step>) -> Link {
        let column = |name: &&str| LinkColumn {
            column: name.to_string(),
            r#type: UUID.into(),
            target_type: UUID.into(),
        };
        Link {
            columns: names.iter().map(column).collect(),
            watched: vec![],
            member,
            everyone: everyone.iter().map(|v| v.to_string()).collect(),
            route,
            again: false,
        }
    }

    fn step(schema: &str, table: &str, by: &[&str], next: &[&str]) -> Step {
        let column = |name: &&str| StepColumn {
            column: name.to_string(),
            operator: "=".into(),
            collation: String::new(),
        };
        let next = next.iter().map(|n| n.to_string()).collect();
        let columns = by.iter().map(column).collect();
        Step { schema: schema.into(), table: table.into(), columns, next }
    }

    fn table(name: &str, links: Vec<Link>) -> Table {
        Table {
            schema: "app".into(),
            name: name.into(),
            links,
            whole: false,
            unique: vec![],
            partial: vec![],
        }
    }

    #[test]
    fn routes_read_as_joins() {
        let profile = || step("", "", &["id"], &[]);
        let own = table("profile", vec![link(&["uid"], true, &[], vec![profile()])]);
        let managed = link(&["id"], false, &[], vec![step("", "", &["manager_id"], &[])]);
        let through = step("app", "Subscription", &["plan_id"], &["tenant", "user no"]);
        let both = step("", "", &["tenant", "no"], &[]);
        let plan = table(
            "plan",
            vec![
                link(&["id"], false, &[], vec![through, both]),
                link(&["id"], false, &["it's free"], vec![]),
                link(&["id"], false, &[ANY_VALUE], vec![]),
                link(&[], false, &[ANY_VALUE], vec![]),
            ],
        );
        let member = table("member", vec![link(&["profile_id"], true, &[], vec![profile()])]);
        let definition = Definition {
            key: "uid".into(),
            view_key: "uid".into(),
            expires: false,
            own_code: false,
            tables: vec![own.clone(), plan.clone(), member.clone()],
        };
        let words = |t: &Table| -> Vec<String> {
            t.links.iter().map(|l| definition.route_in_words(t, l)).collect()
        };
        assert_eq!(words(&own), ["app.profile itself"]);
        assert_eq!(words(&member), ["app.member.profile_id = app.profile.id"]);
        let other = definition.route_in_words(&own, &managed);
        assert_eq!(other, "app.profile.id = app.profile.manager_id");
        assert_eq!(
            words(&plan),
            [
                "app.plan.id = app.\"Subscription\".plan_id → app.\"Subscription\" (tenant, \"user no\") = app.profile (tenant, no)",
                "app.plan.id = 'it''s free' → every profile",
                "app.plan → every profile",
                "app.plan → every profile",
            ]
        );
    }
}
