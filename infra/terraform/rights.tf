# Who may do what, of all roles and policies together: what the tests look at.

locals {
  everybodys = merge(module.functions.statements, module.access.statements, one(module.workers[*].statements))
  who = { for action in distinct(flatten([for statements in local.everybodys : [for statement in statements : statement.Action]])) :
    action => [for name, statements in local.everybodys : name if anytrue([for statement in statements : contains(flatten([statement.Action]), action)])]
  }
}
