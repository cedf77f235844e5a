# What roles may do: no action and no resource that is not named, but for the exceptions below.

mock_provider "aws" {
  source = "./tests/aws"
}

override_resource {
  target = module.data.aws_sqs_queue.hints["lambda-high"]
  values = { arn = "arn:aws:sqs:eu-west-1:123456789012:night-lambda-high" }
}

override_resource {
  target = module.data.aws_sqs_queue.hints["lambda-normal"]
  values = { arn = "arn:aws:sqs:eu-west-1:123456789012:night-lambda-normal" }
}

override_resource {
  target = module.data.aws_sqs_queue.hints["lambda-low"]
  values = { arn = "arn:aws:sqs:eu-west-1:123456789012:night-lambda-low" }
}

variables {
  grid     = "night"
  region   = "eu-west-1"
  packages = "./tests/packages"
  workers  = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/sheaf:1" }
}

run "no_wildcards" {
  command = apply

  assert {
    condition     = alltrue(flatten([for statements in local.everybodys : [for statement in statements : [for action in flatten([statement.Action]) : !strcontains(action, "*")]]]))
    error_message = "No role and no policy has a wildcard in an action."
  }
  assert {
    # The login of a registry has no resource, nor has a list of tasks, which a condition keeps to the grid's cluster.
    condition = alltrue(flatten([for name, statements in local.everybodys : [for statement in statements : [for resource in flatten([statement.Resource]) :
      resource != "*" || jsonencode(statement.Action) == jsonencode(["ecr:GetAuthorizationToken"]) || (
        name == "sweep" && jsonencode(statement.Action) == jsonencode(["ecs:ListTasks"]) &&
        jsonencode(try(statement.Condition, null)) == jsonencode({ ArnEquals = { "ecs:cluster" = ["arn:aws:ecs:eu-west-1:123456789012:cluster/night"] } })
      )
    ]]]))
    error_message = "No role and no policy may do anything to everything."
  }
  assert {
    # Behind a prefix of the bucket, the stream of a log, and the paths of the API.
    condition = alltrue(flatten([for statements in local.everybodys : [for statement in statements : [for resource in flatten([statement.Resource]) :
      !strcontains(trimsuffix(resource, "*"), "*") || can(regex("^arn:aws:execute-api:[^*]+/\\$default/\\*/\\*$", resource))
    ]]]))
    error_message = "A wildcard stands at the end, behind what the grid owns."
  }
  assert {
    condition = alltrue(flatten([for statements in local.everybodys : [for statement in statements : [for resource in flatten([statement.Resource]) :
      !startswith(resource, "arn:aws:s3:::") || resource == "arn:aws:s3:::night-123456789012-eu-west-1" ||
      can(regex("^arn:aws:s3:::night-123456789012-eu-west-1/(inbox|outbox|p|r|l|k|f|u|u/collect)/\\*$", resource))
    ]]]))
    error_message = "Objects are given by their prefixes, of this bucket only."
  }
  assert {
    condition = alltrue(flatten([for statements in local.everybodys : [for statement in statements :
      !anytrue([for action in flatten([statement.Action]) : contains(["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"], action)]) ||
      length(try(statement.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"], [])) > 0 && try(statement.Condition.Null["dynamodb:LeadingKeys"], "") == "false"
    ]]))
    error_message = "Items are given by their partitions, and a request without keys is refused."
  }
  assert {
    condition = alltrue(flatten([for statements in local.everybodys : [for statement in statements :
      [for partition in try(statement.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"], []) : can(regex("^(G|W|[SCFNE]#\\*)$", partition))]
    ]]))
    error_message = "Partitions are those of the schema."
  }
}

run "who_may_what" {
  command = apply

  assert {
    condition     = toset(lookup(local.who, "lambda:InvokeFunction", [])) == toset([])
    error_message = "Nobody invokes a Lambda unless some are named."
  }
  assert {
    condition     = toset(lookup(local.who, "dynamodb:DeleteItem", [])) == toset(["dispatch", "sweep", "worker"])
    error_message = "The sweeper deletes; workers delete what they say of themselves."
  }
  assert {
    condition     = toset(lookup(local.who, "s3:DeleteObject", [])) == toset(["dispatch", "sweep", "upload", "worker"])
    error_message = "The sweeper deletes what is past its retention, uploads delete their own reports, and workers replaced checkpoints."
  }
  assert {
    condition     = toset(lookup(local.who, "sqs:ReceiveMessage", [])) == toset(["dispatch", "upload", "worker"])
    error_message = "Others have no business with messages."
  }
  assert {
    condition     = toset(lookup(local.who, "events:PutEvents", [])) == toset(["result"])
    error_message = "One Lambda tells of jobs that have ended."
  }
  assert {
    condition     = toset(lookup(local.who, "dynamodb:GetRecords", [])) == toset(["result"])
    error_message = "One Lambda reads the stream."
  }
  assert {
    condition     = toset(concat(lookup(local.who, "ecs:DescribeServices", []), lookup(local.who, "ecs:UpdateService", []))) == toset(["sweep"])
    error_message = "The sweeper scales the containers."
  }
  assert {
    condition = alltrue([for statement in local.everybodys.sweep : !contains(statement.Action, "ecs:UpdateService") || (
      alltrue([for resource in statement.Resource : startswith(resource, "arn:aws:ecs:eu-west-1:123456789012:service/night/")]) &&
      jsonencode(try(statement.Condition, null)) == jsonencode({ ArnEquals = { "ecs:cluster" = ["arn:aws:ecs:eu-west-1:123456789012:cluster/night"] } })
    )])
    error_message = "And those of this grid only."
  }
  assert {
    condition     = toset([for action, who in local.who : action if startswith(action, "ecs:") && contains(who, "sweep")]) == toset(["ecs:DescribeServices", "ecs:UpdateService", "ecs:ListTasks", "ecs:DescribeTasks", "ecs:DescribeContainerInstances"])
    error_message = "Of ECS it may read and set counts, and read how containers ended."
  }
  assert {
    condition = alltrue([for statement in local.everybodys.sweep : !contains(statement.Action, "ecs:DescribeTasks") || (
      toset(statement.Resource) == toset(["arn:aws:ecs:eu-west-1:123456789012:task/night/*", "arn:aws:ecs:eu-west-1:123456789012:container-instance/night/*"]) &&
      jsonencode(try(statement.Condition, null)) == jsonencode({ ArnEquals = { "ecs:cluster" = ["arn:aws:ecs:eu-west-1:123456789012:cluster/night"] } })
    )])
    error_message = "Of this grid's containers and machines only."
  }
  assert {
    condition     = toset(concat(lookup(local.who, "ecs:ListTasks", []), lookup(local.who, "ecs:DescribeTasks", []), lookup(local.who, "ecs:DescribeContainerInstances", []))) == toset(["sweep"])
    error_message = "Nobody else counts reclaims."
  }
  assert {
    condition     = toset(lookup(local.who, "execute-api:Invoke", [])) == toset(["client"])
    error_message = "The API is for clients."
  }
  assert {
    condition = alltrue(flatten([for name in ["dispatch", "worker"] : [for statement in local.everybodys[name] :
      (!contains(statement.Action, "s3:PutObject") || alltrue([for resource in statement.Resource : can(regex("/(r|l|k)/\\*$", resource))])) &&
      (!contains(statement.Action, "s3:DeleteObject") || alltrue([for resource in statement.Resource : endswith(resource, "/k/*")]))
    ]]))
    error_message = "Workers write results, logs and checkpoints, and delete checkpoints, nothing else."
  }
  assert {
    condition = alltrue([for statement in local.everybodys.dispatch :
      !contains(statement.Action, "sqs:ReceiveMessage") || alltrue([for resource in statement.Resource : strcontains(resource, ":night-lambda-")])
    ])
    error_message = "The dispatching Lambda serves its own lane."
  }
}

run "containers_serve_their_own_lanes" {
  command = apply

  assert {
    condition = alltrue([for statement in local.everybodys.worker :
      !anytrue([for action in statement.Action : startswith(action, "sqs:")]) || length(statement.Resource) == 6 && !anytrue([for resource in statement.Resource : strcontains(resource, ":night-lambda-")])
    ])
    error_message = "A container serves the queues of its lanes."
  }
}

run "named_lambdas_may_be_invoked" {
  command = apply
  variables {
    invoke_arns = ["arn:aws:lambda:eu-west-1:123456789012:function:price"]
  }

  assert {
    condition     = toset(lookup(local.who, "lambda:InvokeFunction", [])) == toset(["dispatch", "worker"])
    error_message = "Only workers invoke."
  }
  assert {
    condition = alltrue([for statement in concat(local.everybodys.dispatch, local.everybodys.worker) :
      !contains(statement.Action, "lambda:InvokeFunction") || jsonencode(statement.Resource) == jsonencode(["arn:aws:lambda:eu-west-1:123456789012:function:price"])
    ])
    error_message = "And those that are named."
  }
}
