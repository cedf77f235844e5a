# Variables that make no sense are refused before anything is planned.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  grid     = "night"
  region   = "eu-west-1"
  packages = "./tests/packages"
}

run "name_in_capitals" {
  command = plan
  variables {
    grid = "Night"
  }
  expect_failures = [var.grid]
}

run "name_too_long" {
  command = plan
  variables {
    grid = "a-name-that-leaves-no-room-for-account-and-region"
  }
  expect_failures = [var.grid]
}

run "own_tag" {
  command = plan
  variables {
    tags = { "sheaf:grid" = "day" }
  }
  expect_failures = [var.tags]
}

run "architecture" {
  command = plan
  variables {
    architecture = "x86-64"
  }
  expect_failures = [var.architecture]
}

run "unknown_function" {
  command = plan
  variables {
    functions = { dispatcher = { memory_mb = 512 } }
  }
  expect_failures = [var.functions]
}

run "api_waits_for_30_seconds" {
  command = plan
  variables {
    functions = { submit = { timeout_s = 60 } }
  }
  expect_failures = [var.functions]
}

run "too_much_memory" {
  command = plan
  variables {
    functions = { dispatch = { memory_mb = 20000 } }
  }
  expect_failures = [var.functions]
}

run "too_few_slots" {
  command = plan
  variables {
    slots = 1
  }
  expect_failures = [var.slots]
}

run "any_lambda" {
  command = plan
  variables {
    invoke_arns = ["arn:aws:lambda:eu-west-1:123456789012:function:*"]
  }
  expect_failures = [var.invoke_arns]
}

run "budget_that_nobody_hears_of" {
  command = plan
  variables {
    budget_usd = 10
  }
  expect_failures = [var.budget_usd]
}

run "no_address" {
  command = plan
  variables {
    alarm_email = "ops"
  }
  expect_failures = [var.alarm_email]
}

run "two_instance_types" {
  command = plan
  variables {
    workers = { image = "w:1", capacity = "ec2", instance_types = ["c7g.large", "c6g.large"] }
  }
  expect_failures = [var.workers]
}

run "subnets_without_their_vpc" {
  command = plan
  variables {
    workers = { image = "w:1", subnet_ids = ["subnet-1"] }
  }
  expect_failures = [var.workers]
}

run "unknown_capacity" {
  command = plan
  variables {
    workers = { image = "w:1", capacity = "lambda" }
  }
  expect_failures = [var.workers]
}

run "unknown_policy" {
  command = plan
  variables {
    workers = { image = "w:1", policy = "greedy" }
  }
  expect_failures = [var.workers]
}

run "containers_that_boot_in_no_time" {
  command = plan
  variables {
    workers = { image = "w:1", boot_s = 0 }
  }
  expect_failures = [var.workers]
}

run "days_of_logs" {
  command = plan
  variables {
    log_retention_days = 31
  }
  expect_failures = [var.log_retention_days]
}
